"""zorac_deploy/resume.py: the unit that types the same command again after a reboot of this machine."""

import subprocess

import pytest

from zorac_deploy import resume
from zorac_deploy.connection import Connection
from zorac_deploy.errors import ZoracDeployError
from zorac_deploy.inventory import Target

HERE = Connection(Target("localhost", "headless", "localhost", local=True))


@pytest.fixture
def typed(monkeypatch):
    """Collect what is run as root instead of running it; the value is the exit code that all of it has."""
    commands = []

    def run(words, **options):
        commands.append((words, options.get("input")))
        return subprocess.CompletedProcess(words, run.code, "", "no room")

    run.code = 0
    monkeypatch.setattr(resume.subprocess, "run", run)
    return commands, run


def test_the_unit_runs_the_same_command_once_in_the_same_place(typed, monkeypatch, tmp_path):
    commands, _ = typed
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZORAC_DEPLOY_INVENTORY", "a b.yml")
    resume.schedule(HERE, ["/venv/bin/python", "-m", "zorac_deploy", "up", "--model", "/models/50% of it"])
    unit = commands[0][1].splitlines()
    assert "ExecStart=/venv/bin/python -m zorac_deploy up --model '/models/50%% of it'" in unit
    assert f"WorkingDirectory={tmp_path}" in unit
    assert 'Environment="ZORAC_DEPLOY_INVENTORY=a b.yml"' in unit
    assert "ExecStopPost=+rm /etc/systemd/system/zorac-deploy-resume.service" in unit
    assert commands[1][0][-3:] == ["enable", "--quiet", "zorac-deploy-resume.service"]


def test_a_unit_that_cannot_be_written_is_said(typed):
    _, run = typed
    run.code = 1
    with pytest.raises(ZoracDeployError, match="no room"):
        resume.schedule(HERE, ["true"])
