"""The host after `up` with the profile headless: driver, desktop, GPUs, unit."""

import json
import re


def installed(host):
    return host.check_output("dpkg-query --show --showformat='${Version}' nvidia-driver-cuda")


def test_the_newest_of_the_branch_is_installed_despite_a_newer_branch(host):
    assert installed(host) == "580.95.05-1"


def test_the_module_is_built_for_the_kernel(host):
    status = host.check_output("/usr/sbin/dkms status")
    assert re.search(r"nvidia/580.95.05, 6\.1\.0-\d+-amd64, x86_64: installed", status), status


def test_the_driver_is_held_and_excluded_from_unattended_upgrades(host):
    held = host.check_output("apt-mark showhold").split()
    assert held == ["nvidia-driver-cuda", "nvidia-kernel-open-dkms", "nvidia-persistenced"]
    assert '"nvidia"' in host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")


def test_the_host_was_rebooted(host):
    with host.sudo():
        record = json.loads(host.file("/var/lib/zorac-deploy/nvidia-driver.json").content_string)
    assert record["boot_id"] != host.check_output("cat /proc/sys/kernel/random/boot_id")
    assert {"dkms", "nvidia-driver-cuda"} <= set(record["packages"])


def test_nouveau_is_blacklisted(host):
    assert "blacklist nouveau" in host.check_output("/usr/sbin/modprobe --showconfig")


def test_no_desktop_runs_or_starts(host):
    assert host.check_output("systemctl get-default") == "multi-user.target"
    assert not host.service("desktop").is_running


def test_the_gpus_are_configured_with_their_power_limit(host):
    assert host.service("gpu-ready").is_running
    assert host.service("gpu-ready").is_enabled
    assert "--id=GPU-fake --power-limit=350" in host.file("/run/nvidia-smi.log").content_string


def test_the_engine_selects_the_gpu_by_uuid(host):
    assert host.service("vllm").is_running
    with host.sudo():
        environment = host.file(f"/proc/{host.service('vllm').systemd_properties['MainPID']}/environ").content_string
    assert "CUDA_VISIBLE_DEVICES=GPU-fake" in environment.split("\0")
    assert "CUDA_DEVICE_ORDER=PCI_BUS_ID" in environment.split("\0")


def test_the_engine_starts_after_gpu_ready(host):
    assert "gpu-ready.service" in host.check_output("systemctl show vllm --property=After")
