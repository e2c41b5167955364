"""The files of the nvidia_driver role, rendered by Ansible. tests/unit/test_driver.py has the decisions."""

import pytest

from tests.templates.render import render, render_file


def host(system, **changes):
    distribution, version = system.split()
    known = {"distribution": distribution, "distribution_version": version}
    driver = {"loaded": None, "installed": None, "library": None, "packages": [], "run_file": False}
    return {
        "ansible_facts": known | {"distribution_major_version": version.split(".")[0]},
        "nvidia_driver_facts": {"kernel": "6.1.0-50-amd64", "kernel_headers": True, "secure_boot": False, "gpus": []}
        | {"driver": driver},
        "__nvidia_driver_settings_read": {"results": []},
        "__nvidia_driver_record_read": {},
        **changes,
    }


@pytest.mark.parametrize(
    ("system", "repository"), [("Debian 12", "debian12"), ("Debian 13", "debian13"), ("Ubuntu 24.04", "ubuntu2404")]
)
def test_the_repository_is_for_the_system(system, repository):
    url = render("nvidia_driver", "{{ nvidia_driver_repository_url }}", **host(system))
    assert url == f"https://developer.download.nvidia.com/compute/cuda/repos/{repository}/x86_64/"


def test_the_plan_uses_the_roles_settings():
    plan = render("nvidia_driver", "{{ __nvidia_driver_plan }}", **host("Debian 13", nvidia_driver_branch=590))
    assert plan["packages"] == ["nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced"]
    assert plan["versioned"][0] == "nvidia-kernel-open-dkms=590.*"
    assert plan["wants"] == ["linux-headers-amd64", *plan["packages"]]


@pytest.mark.parametrize(("version", "pin"), [("", "580.*"), ("580.95.05", "580.95.05-*")])
def test_the_pin_is_the_branch_or_the_version(version, pin):
    template = "etc/apt/preferences.d/zorac-deploy-nvidia.j2"
    text = render_file("nvidia_driver", template, **host("Debian 12", nvidia_driver_version=version))
    assert f"Pin: version {pin}\n" in text
