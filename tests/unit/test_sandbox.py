"""zorac_deploy/sandbox: what can be tested without a host."""

import json
import os
import select
import subprocess
import sys
from dataclasses import asdict

import pytest

from zorac_deploy.sandbox import host, paths
from zorac_deploy.sandbox.host import Sandbox


def sandbox(pid):
    return Sandbox("h-test", "debian12", "shared", "127.0.0.1", 2222, 1, pid)


@pytest.mark.parametrize(
    ("words", "running"), [(["--machine=h-test"], True), (["--machine=h-tes"], False), (["h-test"], False)]
)
def test_another_process_with_the_supervisors_pid_is_no_running_host(words, running):
    with subprocess.Popen([sys.executable, "-c", "input()", *words], stdin=subprocess.PIPE) as process:
        assert sandbox(process.pid).running is running
        process.kill()
    assert not sandbox(process.pid).running


def test_a_supervisor_that_ended_and_was_not_waited_for_does_not_run():
    process = subprocess.Popen([sys.executable, "-c", "", "--machine=h-test"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not sandbox(process.pid).running
    process.wait()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "cut"}', "null"])
def test_a_record_that_was_cut_off_hides_no_other_host(tmp_path, monkeypatch, text):
    monkeypatch.setattr(paths, "hosts", lambda: tmp_path)
    for name, record in {"cut": text, "h-test": json.dumps(asdict(sandbox(1)))}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "sandbox.json").write_text(record)
    assert host.listed() == [sandbox(1)]


def test_two_runs_create_one_after_the_other(tmp_path):
    script = (
        "import sys; from pathlib import Path; from zorac_deploy.sandbox import paths\n"
        "with paths.locked(Path(sys.argv[1])): print('has it', flush=True); input()"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "images")]
    runs = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    ready = select.select([run.stdout for run in runs], [], [], 30)[0]
    assert len(ready) == 1
    assert not select.select([run.stdout for run in runs if run.stdout is not ready[0]], [], [], 0.5)[0]
    first, second = sorted(runs, key=lambda run: run.stdout is not ready[0])
    assert first.communicate("\n", timeout=30)[0] == "has it\n"
    assert second.communicate("\n", timeout=30)[0] == "has it\n"
