"""Sandbox hosts are real, separate, and leave nothing behind."""

import subprocess
import time
from pathlib import Path

import pytest

from zorac_deploy.errors import SandboxError
from zorac_deploy.sandbox import host

pytestmark = pytest.mark.host


def test_an_isolated_host_runs_systemd_and_has_no_network(offline, inside):
    assert inside(offline, "cat /proc/1/comm").strip() == "systemd"
    assert inside(offline, "sudo systemctl is-system-running").strip() == "running"
    assert inside(offline, "getent hosts deb.debian.org || echo none").strip() == "none"


def test_up_of_a_running_sandbox_returns_it(offline):
    assert host.up(offline.name, network="isolated") == offline


def test_a_reboot_boots_the_same_host(offline, inside):
    look = "cat /proc/sys/kernel/random/boot_id; sudo systemctl show --property=UserspaceTimestamp"
    before = inside(offline, look)
    inside(offline, "sudo systemd-run --on-active=0.2 systemctl reboot 2>/dev/null")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        # A host that shuts down closes its connections.
        after = subprocess.run(host.ssh_command(offline, look), capture_output=True, text=True, check=False)
        if after.returncode == 0 and after.stdout != before:
            host._wait_for_ssh(offline, host._BOOTED)
            return
        time.sleep(0.2)
    pytest.fail("the host did not reboot")


def test_a_reset_boots_the_same_host(inside):
    made = host.up("test-reset", network="isolated")
    inside(made, "touch kept")
    before = inside(made, "cat /proc/sys/kernel/random/boot_id")
    again = host.reset("test-reset")
    assert inside(again, "cat /proc/sys/kernel/random/boot_id") != before
    assert inside(again, "ls") == "kept\n"
    host.down("test-reset")


def test_a_kept_layer_is_under_a_new_host_without_what_is_a_hosts_own(inside, tmp_path):
    inside(host.up("test-kept", network="isolated"), "sudo touch /opt/kept && sudo rm /etc/issue && touch mine")
    host.keep("test-kept", tmp_path / "layer")
    assert "test-kept" not in [made.name for made in host.listed()]
    made = host.up("test-layered", network="isolated", layer=tmp_path / "layer")
    look = "hostname; ls /opt /home/admin; ls /etc/issue || echo removed; sudo journalctl --list-boots --quiet | wc -l"
    assert inside(made, look).split() == ["test-layered", "/home/admin:", "/opt:", "kept", "removed", "1"]
    host.down("test-layered")


def test_down_leaves_nothing_behind():
    made = host.up("test-brief", network="isolated")
    assert host._processes_of("test-brief")
    assert host.down("test-brief")
    assert not made.folder.exists()
    assert not Path("/run/netns/zorac-test-brief").exists()
    assert not any(folder.exists() for folder in host._cgroup_folders("test-brief"))
    assert host.down("test-brief") is False


@pytest.mark.parametrize("name", ["", "../evil", "UPPER", "a b", "-x", "x" * 60])
def test_an_invalid_host_name_is_refused(name):
    with pytest.raises(SandboxError, match="is not a valid host name"):
        host.up(name)
