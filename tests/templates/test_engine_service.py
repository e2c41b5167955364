"""The unit of the engine_service role, rendered by Ansible without a host."""

import pytest
from ansible.errors import AnsibleError

from tests.templates.render import render, render_file

_PROGRAM = {
    "name": "vllm",
    "title": "vLLM",
    "documentation": "https://docs.vllm.ai",
    "command": ["/opt/engines/cuda-0.26.0/bin/python", "@GENERATION@/vllm-serve", "@GENERATION@/vllm.yaml"],
    "environment": {"A": "one two"},
    "stop_seconds": 20,
}


@pytest.fixture
def unit():
    def rendered(program=_PROGRAM, **changes):
        settings = {"engine_service_engine_path": "/opt/engines/cuda-0.26.0", "engine_service_program": program}
        return render_file("engine_service", "etc/systemd/system/engine.service.j2", **settings | changes).splitlines()

    return rendered


def test_the_unit_has_no_key_and_is_sandboxed(unit):
    lines = unit()
    assert "LoadCredential=api-key:/etc/zorac-deploy/api-key" in lines
    assert not any("API_KEY" in line for line in lines)
    for line in ("ProtectSystem=strict", "NoNewPrivileges=yes", "KillMode=mixed", "Restart=always"):
        assert line in lines


def test_a_gpu_adds_only_devices_to_the_unit(unit):
    without, with_gpu = unit(), unit(engine_service_devices=["/dev/nvidiactl"])
    assert set(without) - set(with_gpu) == {"PrivateDevices=yes"}
    assert set(with_gpu) - set(without) == {"DeviceAllow=/dev/nvidiactl rw"}


def test_both_engines_have_the_same_sandboxing(unit):
    def walls(lines):
        return lines[lines.index("ProtectSystem=strict") :]

    assert walls(unit()) == walls(unit({**_PROGRAM, "name": "llama-cpp", "command": ["/bin/llama-server"]}))


def test_what_systemd_would_expand_or_unquote_is_escaped(unit):
    command = ["/opt/50%/llama-server", "--api-key-file", "@CREDENTIALS@/api-key", "--kwargs", '{"a":"$b"}', "\\", ""]
    environment = {"A": "one two", "B": "50%h", "C": 'a"b\\', "D": "$HOME", "E": ""}
    lines = unit({**_PROGRAM, "title": "100 %", "command": command, "environment": environment})
    assert "Description=100 %% (custom)" in lines
    assert r'ExecStart=/opt/50%%/llama-server --api-key-file %d/api-key --kwargs "{\"a\":\"$$b\"}" "\\" ""' in lines
    for line in ('"A=one two"', "B=50%%h", r'"C=a\"b\\"', "D=$HOME", "E="):
        assert f"Environment={line}" in lines


def test_a_path_with_spaces_is_one_argument(unit):
    lines = unit(engine_service_engine_path="/opt/my engines/e", engine_service_path=["/opt/cu da/50%"])
    assert 'ExecStartPost="/opt/my engines/e/bin/python" @GENERATION@/engine-ready 127.0.0.1 8000' in lines
    assert any(line.startswith('Environment="PATH=/opt/my engines/e/bin:/opt/cu da/50%%:/usr/') for line in lines)


@pytest.mark.parametrize("value", ["a\nUser=root", "\x1b[31m", "\u2028", "\x85"])
def test_a_line_end_is_refused(unit, value):
    with pytest.raises(AnsibleError, match="which a systemd unit cannot hold"):
        unit({**_PROGRAM, "environment": {"A": value}})
    with pytest.raises(AnsibleError, match="which a systemd unit cannot hold"):
        unit(engine_service_profile=value)


def test_stopping_waits_for_running_requests(unit):
    assert "TimeoutStopSec=50" in unit()


def test_the_unit_names_only_files_of_its_own_generation(unit):
    lines = unit()
    assert f"ExecStart={' '.join(_PROGRAM['command'])}" in lines
    assert not any("/current" in line for line in lines)


@pytest.mark.parametrize("key", ["", None, "sk-1", 12345, "a" * 1024, "!~:,{}\"'%\\"])
def test_a_key_that_can_be_sent_is_accepted(key):
    assert render("engine_service", "{{ __engine_service_key_sendable }}", engine_service_api_key=key) is True


@pytest.mark.parametrize(
    "key", ["schlüssel-€", "ü", "a\n", "a\nb", "a\r", "a b", "   ", "\t", "\x00", "a\x1b[0m", "a" * 1025]
)
def test_a_key_that_cannot_be_sent_is_refused(key):
    assert render("engine_service", "{{ __engine_service_key_sendable }}", engine_service_api_key=key) is False
