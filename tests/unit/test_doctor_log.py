"""zorac_deploy/doctor/log.py and zorac_host/diagnosis.py: logs of any size and shape."""

import gzip
import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from zorac_deploy.cli import cli
from zorac_deploy.doctor import log, rules
from zorac_deploy.errors import REFUSALS, Refused

_RULES = [rule.rule() for rule in rules.shipped()]
_PORT = "[Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use"
_OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 350.00 MiB."
_START = "systemd[1]: Starting vllm.service - vLLM..."
_VERSION = "INFO [api_server.py:1896] vLLM API server version 0.26.0"


@pytest.fixture
def diagnose(tmp_path):
    def of(content):
        path = tmp_path / "engine.log"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return [finding.id for finding in log.diagnose(str(path), _RULES)]

    return of


def test_the_last_start_that_failed_counts(diagnose):
    assert diagnose("\n".join([_START, _OOM, _START, _PORT])) == ["address_in_use"]
    assert diagnose("\n".join([_START, _PORT, _START, _OOM, _START, "Application startup complete."])) == ["cuda_oom"]


def test_a_version_line_begins_a_start_only_where_systemd_does_not_say_so(diagnose):
    assert diagnose("\n".join([_VERSION, _OOM, _VERSION, _PORT])) == ["address_in_use"]
    assert diagnose("\n".join([_START, _OOM, _VERSION, "INFO: all is well"])) == ["cuda_oom"]
    assert diagnose("\n".join([_OOM, _VERSION, "INFO: all is well"])) == ["cuda_oom"]


def test_a_fault_of_the_host_outlives_the_starts_of_the_engine(diagnose):
    lines = ["kernel: NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus", _START, "No CUDA GPUs are available"]
    assert diagnose("\n".join(lines))[0] == "gpu_off_bus_xid79"


def test_a_fault_that_is_over_is_no_finding(diagnose):
    stalled = "Avg generation throughput: 0.0 tokens/s, Running: 2 reqs, Waiting: 0 reqs"
    moving = "Avg generation throughput: 31.4 tokens/s, Running: 2 reqs, Waiting: 0 reqs"
    assert diagnose("\n".join([moving, stalled])) == ["rpc_timeout_hang"]
    assert diagnose("\n".join([stalled, moving])) == []


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32"])
def test_other_encodings_are_read(diagnose, encoding):
    assert diagnose(f"INFO start\r\n{_PORT}\r\n".encode(encoding)) == ["address_in_use"]


def test_colours_carriage_returns_and_zeros_do_not_hide_a_line(diagnose):
    assert diagnose(f"\x1b[31m{_PORT[:40]}\x1b[0m{_PORT[40:]}") == ["address_in_use"]
    assert diagnose(f"#033[1;31m{_PORT[:20]}#033[0m{_PORT[20:]}") == ["address_in_use"]
    assert diagnose(f"  3%|#    |\r 9%|##   |\r{_PORT}") == ["address_in_use"]
    assert diagnose(b"text before a power cut\n" + b"\0" * 20 + _PORT.encode()) == ["address_in_use"]
    assert diagnose(b"Geh\xe4use\n" + _PORT.encode() + b"\xff") == ["address_in_use"]


def test_a_message_at_any_place_of_a_line_without_end_is_found(diagnose):
    for place in (16_000, 16_350, 200_000, 262_100):
        assert diagnose("x " * (place // 2) + _PORT + " y" * 100_000) == ["address_in_use"], place


def test_a_line_that_was_cut_is_still_known(diagnose):
    assert diagnose(_OOM[: _OOM.index(" Tried")]) == ["cuda_oom"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\t\n", "is empty"),
        (b"\0" * 10_000, "no text but zeros"),
        (os.urandom(10_000), "is binary"),
        (gzip.compress(b"text", mtime=0), "compressed with gzip"),
        (b"LPKSHHRH" + b"\0" * 100, "journalctl"),
        (b"\x7fELF\2\1\1" + b"\0\1\2\3" * 400, "is binary"),
    ],
)
def test_what_is_no_text_is_refused(diagnose, content, said):
    with pytest.raises(Refused, match=said) as refused:
        diagnose(content)
    assert refused.value.refusal == "log-unreadable"


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/", "/no/such/file"])
def test_what_is_no_file_is_refused(path):
    with pytest.raises(Refused) as refused:
        log.diagnose(path, _RULES)
    assert refused.value.refusal == "log-unreadable"


def test_memory_stays_bounded(tmp_path):
    path = tmp_path / "long.log"
    line = "INFO 11-23 18:00:00 [loggers.py:248] Engine 000: Avg prompt throughput: 812.4 tokens/s, Running: 2 reqs\n"
    path.write_text(line * (10_000_000 // len(line)) + "x" * 3_000_000 + _PORT)
    program = (
        "import re, sys; from pathlib import Path; from zorac_deploy.doctor import log, rules\n"
        "found = log.diagnose(sys.argv[1], [rule.rule() for rule in rules.shipped()])\n"
        # not ru_maxrss, which counts the process that started this one
        "print(found[0].id, re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    name, kibibytes = done.stdout.split()
    assert name == "address_in_use"
    assert int(kibibytes) < 200 * 1024


def test_the_command_prints_a_list_and_ends_with_0():
    done = CliRunner().invoke(cli, ["doctor", "--log", "-", "--json"], input=f"{_PORT}\n")
    assert done.exit_code == 0
    (finding,) = json.loads(done.output)
    assert set(finding) == {"id", "cause", "evidence", "fix", "not_to_advise", "second_signal", "confidence"}
    assert finding["evidence"] == _PORT
    assert json.loads(CliRunner().invoke(cli, ["doctor", "--log", "-", "--json"], input="all is well\n").output) == []


def test_the_command_says_what_is_no_log():
    done = CliRunner().invoke(cli, ["doctor", "--log", "/dev/zero"])
    assert done.exit_code == REFUSALS["log-unreadable"].exit_code


def test_the_command_lists_the_rules():
    assert "free_memory_lt_util" in CliRunner().invoke(cli, ["doctor", "--rules"]).output
    assert len(json.loads(CliRunner().invoke(cli, ["doctor", "--rules", "--json"]).output)["rules"]) == len(_RULES)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("width", [30, 60, 80, 100])
def test_a_message_that_a_terminal_wrapped_is_found(diagnose, width, end):
    text = f"(EngineCore_DP0 pid=1094) ERROR 11-23 10:00:00 [core.py:708] {_PORT}"
    assert diagnose(end.join(text[at : at + width] for at in range(0, len(text), width))) == ["address_in_use"]


@pytest.mark.parametrize(
    "before", ["Nov 28 10:00:00 gpu1 vllm[7]: ", "engine-1  | ", "2026-11-28T10:00:00Z cuda-node info[7]: "]
)
@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("batch-runner: task was killed because the host ran out of memory", "oom_killer"),
        (
            "error: argument --quantization: invalid choice: 'q4' (see --help for more information)",
            "quant_unrecognized",
        ),
        ("No devices were found", "no_devices_found"),
    ],
)
def test_the_name_of_a_host_or_container_before_a_line_changes_nothing(diagnose, before, text, cause):
    assert diagnose(before + text) == [cause]


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["killed"], []),
        (["killed", "of the shell"], ["ours"]),
        (["of the shell", "killed", "a traceback"], []),
        (["a traceback", _START, "of the shell", "killed"], ["ours"]),  # of an earlier start
    ],
)
def test_a_pattern_can_need_a_line_of_the_same_start_and_lack_another(tmp_path, lines, found):
    rule = tmp_path / "ours.yaml"
    rule.write_text(
        "{id: ours, title: T, scope: engine, cause: C, fix: F, not_to_advise: N, second_signal: S, probe: unit_log, "
        "versions: V, sources: [https://example.org], patterns: [{match: ^killed$, needs: shell, lacks: traceback}], "
        'fixtures: {match: ["killed\\nshell"], no_match: [killed]}}'
    )
    path = tmp_path / "engine.log"
    path.write_text("\n".join(lines))
    assert [finding.id for finding in log.diagnose(str(path), [rules.load(rule).rule()])] == found
