"""The driver in a real machine: Debian's NVIDIA driver, its modules, Secure Boot, an enrolled key, real reboots.

The packages are installed and the modules built on a sandbox host, at this machine's speed; its file system becomes
the disk of a virtual machine with its own kernel and firmware. The GPU is fake, QEMU has none: at the end the driver
says "No such device", which a module that the kernel refused cannot say.
"""

import re
import subprocess
import time

import pytest
import yaml

from tests.vm.machine import Machine, make_disk, make_tree
from zorac_deploy.sandbox import host

pytestmark = pytest.mark.vm

# The CPU engine, because the driver of Debian 12 is too old for CUDA 13.
_CARD = {"cards": [{"address": "0000:01:00.0", "device": "0x2684", "driver": None}]}
_VARIABLES = {
    "card_facts": "{{ nvidia_facts_found | combine(made_up_facts, recursive=true) }}",
    "nvidia_driver_facts": "{{ card_facts }}",
    "gpu_compatibility_facts": "{{ card_facts }}",
    "nvidia_driver_source": "distribution",
    "nvidia_driver_console_attended": True,
    "vllm_engine_lock": "cpu-0.32.0",
    "engine_required_gib": 1,
    "vllm_kv_cache_dtype": "auto",
    "vllm_tokenizer_mode": "auto",
}


@pytest.fixture
def up(tmp_path):
    """Run `zorac-deploy up` with an inventory and further variables."""

    def ran(source, made_up, **changes):
        name, variables = next(iter(yaml.safe_load(source)["cpu"]["hosts"].items()))
        variables |= _VARIABLES | {"made_up_facts": _CARD | made_up} | changes
        inventory = tmp_path / f"{name}.yml"
        inventory.write_text(yaml.safe_dump({"headless": {"hosts": {name: variables}}}))
        began = time.monotonic()
        done = subprocess.run(
            ["zorac-deploy", "up", "--inventory", inventory], capture_output=True, text=True, check=False
        )
        print(f"up: exit code {done.returncode}, {time.monotonic() - began:.0f} s\n{done.stdout}{done.stderr}")  # noqa: T201 - shown with -s: it takes minutes
        return done

    return ran


@pytest.fixture(scope="module")
def sandbox():
    """The sandbox host whose file system becomes the machine's disk."""
    yield host.up("vm-driver")
    host.down("vm-driver")


def changes(done):
    return re.findall(r"changed (.*)", done.stdout)


def test_a_driver_with_secure_boot(sandbox, up, tmp_path):
    said = subprocess.run(
        host.ssh_command(sandbox, "apt-cache", "depends", "--important", "linux-headers-amd64"),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    kernel = re.search(r"linux-headers-(\S+-amd64)", said)[1]

    # Natively: the packages, and the signed modules for the machine's kernel. A container has no firmware for the key.
    native = up(sandbox.inventory.read_text(), {"kernel": kernel, "secure_boot": True})
    assert native.returncode == 40
    assert "EFI variables are not supported" in native.stderr
    make_tree(tmp_path / "tree", sandbox.folder / "merged")
    make_disk(tmp_path / "tree", tmp_path / "disk")

    with Machine(tmp_path / "disk", tmp_path / "machine") as machine:
        first_boot = machine.wait_for_boot()
        inventory = machine.inventory("vm", "cpu", model_weights_source=str(_model(sandbox)))
        assert machine.run("uname -r").stdout.strip() == kernel
        assert "SecureBoot enabled" in machine.run("mokutil --sb-state").stdout
        assert "Key was rejected" in machine.run("sudo modprobe nvidia", check=False).stderr

        # Nothing is installed again; the key waits for the next boot, and the message says what to do there.
        waiting = up(inventory, {})
        assert waiting.returncode == 76, waiting.stderr
        assert [change for change in changes(waiting) if "key waits" not in change] == []
        password = re.search(r"For the password, type (\d{8})", waiting.stderr)[1]

        second_boot = machine.reboot(enrol=password, limit=600)
        assert second_boot != first_boot
        assert "is already enrolled" in machine.run(f"sudo mokutil --test-key {_KEY}", check=False).stdout

        # The kernel accepts the module now, which finds no GPU; the host was booted since, so no reboot is required.
        dead = up(inventory, {})
        assert dead.returncode == 74, dead.stderr
        assert "No such device" in dead.stderr
        assert changes(dead) == []

        # As after an installation in this boot: a reboot is needed, refused without the option, and done with it.
        machine.run(f'sudo sed -i \'s/"boot_id": .*/"boot_id": "{second_boot}",/\' {_RECORD}')
        assert up(inventory, {}).returncode == 71
        assert up(inventory, {}, nvidia_driver_reboot_allowed=True).returncode == 74
        assert machine.wait_for_boot() not in (first_boot, second_boot)
        _assert_installed(machine, kernel)


_KEY = "/var/lib/zorac-deploy/module-key/key.der"
_RECORD = "/var/lib/zorac-deploy/nvidia-driver.json"


def _model(sandbox):
    return yaml.safe_load(sandbox.inventory.read_text())["cpu"]["hosts"][sandbox.name]["model_weights_source"]


def _assert_installed(machine, kernel):
    """The role's promises, checked in the machine."""
    module = machine.run("sudo modinfo nvidia-current").stdout  # Debian's name for it
    assert re.search(r"^version: +535\.", module, re.MULTILINE)
    assert re.search(r"^signer: +zorac-deploy on ", module, re.MULTILINE)
    assert f"{kernel}, x86_64: installed" in machine.run("sudo dkms status").stdout
    held = machine.run("apt-mark showhold").stdout.split()
    assert {"nvidia-kernel-dkms", "libcuda1", "nvidia-smi"} <= set(held)
    assert "zorac-deploy-nouveau.conf" in machine.run("sudo lsinitramfs /boot/initrd.img-$(uname -r)").stdout
    assert "nouveau" not in machine.run("lsmod").stdout
    assert machine.run("systemctl is-enabled nvidia-persistenced").stdout.strip() == "enabled"
    assert "Candidate: 535." in machine.run("apt-cache policy nvidia-kernel-dkms").stdout
