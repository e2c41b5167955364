"""What stands on a Debian 12 host after the nvidia_driver role took the driver from Debian's archive."""

import re


def test_the_modules_are_built_for_the_kernel_whose_headers_are_there(host):
    status = host.run("/usr/sbin/dkms status").stdout
    assert re.search(r"nvidia-current/535\.[\d.]+, 6\.1\.0-\d+-amd64, x86_64: installed", status), status


def test_the_driver_is_held(host):
    held = host.check_output("apt-mark showhold").split()
    assert {"nvidia-kernel-dkms", "libcuda1", "nvidia-smi"} <= set(held)


def test_apt_stays_on_the_branch(host):
    policy = host.check_output("apt-cache policy nvidia-kernel-dkms")
    assert re.search(r"Candidate: 535\.", policy), policy
    assert "1001" in policy


def test_unattended_upgrades_stay_away(host):
    assert '"nvidia"' in host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")


def test_nouveau_is_blacklisted(host):
    assert "blacklist nouveau" in host.file("/etc/modprobe.d/zorac-deploy-nouveau.conf").content_string
    assert "blacklist nouveau" in host.check_output("/usr/sbin/modprobe --showconfig | grep '^blacklist nouveau'")


def test_persistence_is_on(host):
    assert host.service("nvidia-persistenced").is_enabled


def test_the_reboot_was_one(host):
    with host.sudo():
        before, after = host.file("/root/boots").content_string.split()
    assert before != after
    assert host.check_output("cat /proc/sys/kernel/random/boot_id") == after
