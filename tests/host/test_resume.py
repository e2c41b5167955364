"""The unit that continues after a reboot, in a real systemd."""

import json
import subprocess

import pytest

from zorac_deploy import resume
from zorac_deploy.sandbox import host

pytestmark = pytest.mark.host

ODD = '50% of $HOME "it\'s" \\ `x` ${y} {{ z }} é'
PROGRAM = "import json, os, sys; json.dump([sys.argv[1:], dict(os.environ), os.getcwd()], open('/root/resumed', 'w'))"
_UNIT = "/etc/systemd/system/zorac-deploy-resume"


class There:
    """A connection that writes root's files on the sandbox instead of on this machine."""

    def __init__(self, sandbox):
        self._sandbox = sandbox

    def command(self, *words):
        return host.ssh_command(self._sandbox, "sudo", *words)


def test_the_same_command_runs_with_the_same_environment_and_no_secret_is_left(offline, monkeypatch):
    def root(command):
        line = host.ssh_command(offline, "sudo", "sh", "-c", f"'{command}'")
        return subprocess.run(line, capture_output=True, text=True, check=False).stdout

    kept = {
        "HF_TOKEN": "hf_c4n4ry",
        "https_proxy": f"http://me:{ODD}@proxy:3128",
        "ZORAC_DEPLOY_INVENTORY": f"{ODD}.yml",
    }
    for name, value in {**kept, "HF_ENDPOINT": "a\nb", "DBUS_SESSION_BUS_ADDRESS": "no"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir("/srv")
    words = ["--model", f"/models/{ODD}", "", "a\nb"]
    resume.schedule(There(offline), ["/usr/bin/python3", "-c", PROGRAM, *words])
    assert root("systemctl is-enabled zorac-deploy-resume") == "enabled\n"
    assert root(f"stat --format=%a:%U {_UNIT}.env") == "600:root\n"
    assert "c4n4ry" not in root(f"cat {_UNIT}.service; systemctl daemon-reload; systemctl show zorac-deploy-resume")
    root("systemctl start zorac-deploy-resume")
    arguments, environment, folder = json.loads(root("cat /root/resumed; rm /root/resumed"))
    assert arguments == words
    assert folder == "/srv"
    assert {name: environment.get(name) for name in kept} == kept
    assert environment["HF_ENDPOINT"] == "a\nb"
    assert "DBUS_SESSION_BUS_ADDRESS" not in environment
    assert root(f"ls {_UNIT}*") == ""
    assert root("systemctl is-enabled zorac-deploy-resume") != "enabled\n"
