"""zorac_deploy/resume.py: the unit that re-runs the command after a reboot of this machine."""

import subprocess

import pytest

from zorac_deploy import resume
from zorac_deploy.connection import Connection
from zorac_deploy.errors import ZoracDeployError
from zorac_deploy.inventory import Target

HERE = Connection(Target("localhost", "headless", "localhost", local=True))


@pytest.fixture
def typed(monkeypatch):
    """Collect the commands for root instead of running them; the value is their exit code."""
    commands = []

    def run(words, **options):
        commands.append((words, options.get("input")))
        return subprocess.CompletedProcess(words, run.code, "", "no room")

    run.code = 0
    monkeypatch.setattr(resume.subprocess, "run", run)
    return commands, run


def test_the_unit_runs_the_same_command_once_in_the_same_place(typed, monkeypatch, tmp_path):
    commands, _ = typed
    folder = tmp_path / "50%"
    folder.mkdir()
    monkeypatch.chdir(folder)
    resume.schedule(HERE, ["/venv/bin/python", "-m", "zorac_deploy", "up", "--model", "/models/50% of $it"])
    unit = commands[1][1].splitlines()
    assert 'ExecStart="/venv/bin/python" "-m" "zorac_deploy" "up" "--model" "/models/50%% of $$it"' in unit
    assert f"WorkingDirectory={tmp_path}/50%%" in unit
    files = "/etc/systemd/system/zorac-deploy-resume.service /etc/systemd/system/zorac-deploy-resume.env"
    assert f"ExecStopPost=+rm --force {files}" in unit
    assert commands[2][0][-3:] == ["enable", "--quiet", "zorac-deploy-resume.service"]


def test_only_root_can_read_the_stored_environment(typed, monkeypatch):
    commands, _ = typed
    kept = {
        "HF_TOKEN": "hf_x",
        "https_proxy": "http://me:a$b@p",
        "NO_PROXY": "box",
        "ZORAC_DEPLOY_INVENTORY": 'a "b".yml',
    }
    for name, value in {**kept, "SSH_AUTH_SOCK": "/x", "XDG_RUNTIME_DIR": "/y"}.items():
        monkeypatch.setenv(name, value)
    resume.schedule(HERE, ["up"])
    words, text = commands[0]
    assert words[-4:-1] == ["install", "--mode=0600", "/dev/stdin"]
    lines = text.splitlines()
    assert {'HF_TOKEN="hf_x"', r'https_proxy="http://me:a\$b@p"', 'NO_PROXY="box"'} <= set(lines)
    assert r'ZORAC_DEPLOY_INVENTORY="a \"b\".yml"' in lines
    assert "SSH_AUTH_SOCK" not in text
    assert "XDG_RUNTIME_DIR" not in text
    assert "hf_x" not in commands[1][1]


def test_an_unwritable_unit_is_reported(typed):
    _, run = typed
    run.code = 1
    with pytest.raises(ZoracDeployError, match="no room"):
        resume.schedule(HERE, ["true"])
