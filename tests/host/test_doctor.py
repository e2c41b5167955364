"""The doctor on a real host that zorac-deploy never deployed to: break it, ask, run what is printed, and it is well."""

import json
import shlex
import subprocess
import time

import pytest

from zorac_deploy.sandbox import host

pytestmark = pytest.mark.host

# A fake engine, as a user may have made it: it answers a health check. It starts in no time.
_ENGINE = """
mkdir -p /usr/local/lib/systemd/system /opt/engine
cat > /opt/engine/vllm <<'PYTHON'
#!/usr/bin/python3
import http.server, sys
class Engine(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"data": [{"id": "small"}]}')
http.server.HTTPServer.allow_reuse_address = True
http.server.HTTPServer(("127.0.0.1", 8123), Engine).serve_forever()
PYTHON
chmod +x /opt/engine/vllm
cat > /usr/local/lib/systemd/system/vllm.service <<'UNIT'
[Service]
ExecStart=/opt/engine/vllm serve small --port 8123
[Install]
WantedBy=multi-user.target
UNIT
mkdir -p /root/half/DEBIAN
cat > /root/half/DEBIAN/control <<'CONTROL'
Package: half
Version: 1
Architecture: all
Maintainer: me <me@example.org>
Description: a package to configure
CONTROL
dpkg-deb --build /root/half /root/half.deb > /dev/null
systemctl daemon-reload
systemctl enable --now --quiet vllm.service
"""
_READY = "timeout 30 sh -c 'until ss --no-header -ltn sport = :8123 | grep -q 8123; do sleep 0.2; done'"
_SQUATTER = "systemd-run --quiet --unit=squatter python3 -m http.server --bind 127.0.0.1 8123"
_HOLD = "import fcntl, time; f=open('/var/lib/dpkg/lock-frontend', 'w'); fcntl.lockf(f, fcntl.LOCK_EX); time.sleep(50)"
_FILL = "mount -t tmpfs -o {0} small /boot"

# A stand-in for a driver: the versions of its module on the disk, of its library, and of the module loaded at boot.
_DRIVER = """
cat > /usr/local/bin/modinfo <<'SHELL'
#!/bin/sh
cat /opt/driver
SHELL
cat > /usr/local/bin/nvidia-smi <<'SHELL'
#!/bin/sh
grep -qw "$(cat /opt/driver)" /proc/driver/nvidia/version && { echo '<nvidia_smi_log/>'; exit; }
echo 'Failed to initialize NVML: Driver/library version mismatch'
exit 18
SHELL
chmod +x /usr/local/bin/modinfo /usr/local/bin/nvidia-smi
cat > /etc/systemd/system/driver.service <<'UNIT'
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=mkdir -p /run/driver/nvidia
ExecStart=sh -c 'echo "NVRM version: NVIDIA UNIX x86_64 Kernel Module  $(cat /opt/driver)" > /run/driver/nvidia/version'
ExecStart=mount --bind /run/driver /proc/driver
[Install]
WantedBy=multi-user.target
UNIT
systemctl enable --quiet driver.service
"""
_INSTALL = """
rm -f /usr/lib/x86_64-linux-gnu/libcuda.so.*
touch /usr/lib/x86_64-linux-gnu/libcuda.so.{0}
echo {0} > /opt/driver
"""


@pytest.fixture(scope="module")
def handmade():
    made = host.up("test-doctor", network="isolated")
    _root(made, f"{_ENGINE}\n{_READY}")
    yield made
    host.down("test-doctor")


def _root(made, script):
    command = host.ssh_command(made, "sudo", "sh")
    return subprocess.run(command, input=script, capture_output=True, text=True, check=True).stdout


@pytest.fixture
def doctor(run, handmade):
    def asked(*more):
        done = run("doctor", handmade.name, "--inventory", handmade.inventory, "--json", *more)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return asked


def test_nothing_is_wrong_with_a_healthy_host_and_nothing_is_changed(doctor, handmade):
    before = _root(
        handmade, "find /etc /usr/local /opt /var/lib/zorac-deploy -newer /root/half.deb 2> /dev/null | sort"
    )
    assert doctor() == []
    after = _root(handmade, "find /etc /usr/local /opt /var/lib/zorac-deploy -newer /root/half.deb 2> /dev/null | sort")
    assert after == before


@pytest.mark.parametrize(
    ("broken", "name"),
    [
        ("systemctl stop vllm", "unit_stopped"),
        ("systemctl disable --quiet vllm", "unit_disabled"),
        ("systemctl stop vllm; systemctl mask --quiet vllm", "unit_masked"),
        (f"systemctl stop vllm; {_SQUATTER}; sleep 1", "address_in_use"),
        ("systemctl kill -s STOP vllm", "endpoint_silent"),
        ("echo Nice=3 >> /usr/local/lib/systemd/system/vllm.service", "daemon_reload_needed"),
        ("dpkg --unpack /root/half.deb > /dev/null", "apt_held_broken"),
        ("systemctl kill -s KILL vllm; sleep 1", "unit_failed"),
    ],
)
def test_a_break_is_named_and_what_is_printed_cures_it(doctor, handmade, broken, name):
    _root(handmade, broken)
    found = doctor()
    assert found[0]["id"] == name, found
    _root(handmade, "\n".join([*found[0]["fix"].splitlines(), _READY]))
    assert doctor() == []


@pytest.mark.parametrize(
    ("broken", "mended", "name"),
    [
        (f"{_FILL.format('size=1m')}", "umount /boot", "disk_full"),
        (f"{_FILL.format('size=100m,nr_inodes=20')}", "umount /boot", "disk_full"),
        (f"{_FILL.format('size=100m,ro')}", "umount /boot", "disk_read_only"),
        ("mv /opt/engine /opt/gone; systemctl restart vllm; sleep 1", "mv /opt/gone /opt/engine", "unit_failed"),
        (
            f"systemd-run --quiet --unit=holder python3 -c {shlex.quote(_HOLD)}; sleep 1",
            "systemctl stop holder",
            "dpkg_locked",
        ),
    ],
)
def test_a_break_that_a_person_has_to_mend_is_named(doctor, handmade, broken, mended, name):
    _root(handmade, broken)
    try:
        assert doctor()[0]["id"] == name
    finally:
        _root(handmade, f"{mended}; systemctl reset-failed vllm; systemctl start vllm; {_READY}")
    assert doctor() == []


def test_an_upgraded_driver_is_named_and_the_printed_reboot_cures_it(doctor, handmade):
    _root(handmade, f"{_DRIVER}{_INSTALL.format('580.65.06')}systemctl start driver.service")
    assert doctor() == []
    _root(handmade, _INSTALL.format("580.95.05"))
    found = doctor()
    assert [(finding["id"], finding["fix"]) for finding in found] == [("driver_library_mismatch", "sudo reboot")]
    boot = "cat /proc/sys/kernel/random/boot_id"
    before = _root(handmade, boot)
    subprocess.run(host.ssh_command(handmade, *shlex.split(found[0]["fix"])), capture_output=True, check=False)
    deadline = time.monotonic() + 60
    while subprocess.run(host.ssh_command(handmade, boot), capture_output=True, text=True, check=False).stdout in (
        before,
        "",
    ):
        assert time.monotonic() < deadline, "the host did not come back"
        time.sleep(0.5)
    _root(handmade, _READY)
    assert doctor() == []


def test_safe_cures_are_offered_one_by_one(run, doctor, handmade):
    _root(handmade, "systemctl stop vllm; dpkg --purge half > /dev/null 2>&1; dpkg --unpack /root/half.deb > /dev/null")
    words = ("doctor", handmade.name, "--inventory", handmade.inventory, "--fix")
    refused = run(*words, input="n\nn\n")
    assert "half" in refused.stdout
    assert {finding["id"] for finding in doctor()} == {"apt_held_broken", "unit_stopped"}
    done = run(*words, input="y\ny\n")
    assert done.returncode == 0, done.stderr
    assert "nothing is wrong" in done.stdout
    assert doctor() == []
