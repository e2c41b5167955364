"""Which packages the nvidia_driver role asks for, on hosts that cannot be had here: rendered as Ansible renders them.

Names and sources: Ubuntu Server documentation, "NVIDIA drivers installation"; NVIDIA, "Driver Installation Guide",
"Compute-only (Headless) and Desktop-only Installation".
"""

import pytest

from tests.templates.render import render, render_file


def host(system="Ubuntu 24.04", kernel="6.8.0-134-generic", secure_boot=False, own=False, **changes):
    """The variables of a host; `own` is a kernel that has its headers without a package."""
    distribution, version = system.split()
    facts = {"distribution": distribution, "distribution_version": version}
    return {
        "ansible_facts": facts | {"distribution_major_version": version.split(".")[0]},
        "nvidia_driver_facts": {"kernel": kernel, "kernel_headers": own, "secure_boot": secure_boot},
        **changes,
    }


def rendered(expression, **options):
    return render("nvidia_driver", expression, **host(**options))


def packages(**options):
    return rendered("{{ __nvidia_driver_packages }}", **options)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (
            {},
            ["nvidia-dkms-580-open", "libnvidia-compute-580", "nvidia-utils-580", "nvidia-compute-utils-580"],
        ),
        (
            {"nvidia_driver_version": "590.44.01"},
            ["nvidia-dkms-590-open", "libnvidia-compute-590", "nvidia-utils-590", "nvidia-compute-utils-590"],
        ),
        (
            {"nvidia_driver_modules": "proprietary"},
            ["nvidia-dkms-580", "libnvidia-compute-580", "nvidia-utils-580", "nvidia-compute-utils-580"],
        ),
        (
            {"nvidia_driver_source": "distribution"},
            ["nvidia-dkms-580-server-open", "nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server"],
        ),
        (
            {"nvidia_driver_source": "distribution", "secure_boot": True},
            [
                "linux-modules-nvidia-580-server-open-6.8.0-134-generic",
                "linux-modules-nvidia-580-server-open-generic",
                "nvidia-headless-no-dkms-580-server-open",
                "nvidia-utils-580-server",
            ],
        ),
        ({"system": "Debian 13"}, ["nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced"]),
        (
            {"system": "Debian 12", "nvidia_driver_modules": "proprietary"},
            ["nvidia-kernel-dkms", "nvidia-driver-cuda", "nvidia-persistenced"],
        ),
        (
            {"system": "Debian 13", "nvidia_driver_source": "distribution"},  # 550: its open modules are not for this
            ["nvidia-kernel-dkms", "nvidia-kernel-support", "nvidia-smi", "libcuda1", "nvidia-persistenced"],
        ),
    ],
)
def test_packages(options, names):
    assert packages(**options) == names


@pytest.mark.parametrize(
    ("system", "kernel", "headers"),
    [
        ("Debian 12", "6.1.0-50-amd64", ["linux-headers-6.1.0-50-amd64", "linux-headers-amd64"]),
        ("Debian 12", "6.1.0-50-cloud-amd64", ["linux-headers-6.1.0-50-cloud-amd64", "linux-headers-cloud-amd64"]),
        ("Debian 13", "6.14.8-2-pve", ["linux-headers-6.14.8-2-pve"]),
        ("Ubuntu 24.04", "6.8.0-134-generic", ["linux-headers-6.8.0-134-generic", "linux-headers-generic"]),
        ("Ubuntu 24.04", "6.8.0-1030-aws", ["linux-headers-6.8.0-1030-aws", "linux-headers-aws"]),
        ("Ubuntu 24.04", "6.14.0-27-generic", ["linux-headers-6.14.0-27-generic", "linux-headers-generic-hwe-24.04"]),
    ],
)
def test_headers_for_the_kernel_that_runs_and_for_those_to_come(system, kernel, headers):
    assert rendered("{{ __nvidia_driver_headers }}", system=system, kernel=kernel) == headers


def test_a_kernel_with_its_headers_asks_for_no_package_of_them():
    assert rendered("{{ __nvidia_driver_headers }}", system="Debian 12", kernel="6.9.1-mine", own=True) == []


@pytest.mark.parametrize(
    ("system", "repository"), [("Debian 12", "debian12"), ("Debian 13", "debian13"), ("Ubuntu 24.04", "ubuntu2404")]
)
def test_the_repository_is_the_systems_own(system, repository):
    url = rendered("{{ nvidia_driver_repository_url }}", system=system)
    assert url == f"https://developer.download.nvidia.com/compute/cuda/repos/{repository}/x86_64/"


@pytest.mark.parametrize(("version", "pin"), [("", "580.*"), ("580.95.05", "580.95.05-*")])
def test_the_pin_is_the_branch_or_the_version(version, pin):
    template = "etc/apt/preferences.d/zorac-deploy-nvidia.j2"
    assert f"Pin: version {pin}\n" in render_file("nvidia_driver", template, **host(nvidia_driver_version=version))


def test_versions_are_asked_for_but_where_the_name_says_the_branch():
    asked = rendered(
        "{{ __nvidia_driver_versioned }}", nvidia_driver_source="distribution", secure_boot=True, kernel="6.8.0-1-aws"
    )
    assert asked == [
        "nvidia-headless-no-dkms-580-server-open=580.*",
        "nvidia-utils-580-server=580.*",
        "linux-modules-nvidia-580-server-open-6.8.0-1-aws",
        "linux-modules-nvidia-580-server-open-aws",
    ]


@pytest.mark.parametrize(
    ("options", "own"),
    [
        ({}, False),
        ({"secure_boot": True}, True),
        ({"secure_boot": True, "nvidia_driver_source": "distribution"}, False),
        ({"secure_boot": True, "nvidia_driver_source": "distribution", "system": "Debian 12"}, True),
        ({"secure_boot": None}, False),
    ],
)
def test_a_key_of_our_own_is_for_modules_that_dkms_builds(options, own):
    assert rendered("{{ __nvidia_driver_own_key }}", **{"kernel": "6.1.0-50-amd64", **options}) is own


def there(version="580.95.05-1", names=("nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced")):
    return [{"name": name, "version": version, "held": True} for name in names]


CANONICALS = ("linux-modules-nvidia-580-server-open-6.8.0-1-aws", "linux-modules-nvidia-580-server-open-aws")
CANONICAL = {
    "system": "Ubuntu 24.04",
    "kernel": "6.8.0-1-aws",
    "nvidia_driver_source": "distribution",
    "secure_boot": True,
}


@pytest.mark.parametrize(
    ("packages", "options", "current"),
    [
        (there(), {}, True),
        (there("1:580.95.05-1"), {"nvidia_driver_version": "580.95.05"}, True),
        (there(), {"nvidia_driver_version": "580.65.06"}, False),
        (there("590.44.01-1"), {}, False),
        (there("5800.1-1"), {}, False),
        (there()[1:], {}, False),
        (there(), {"nvidia_driver_modules": "proprietary"}, False),
        (there(), {"own": False}, False),  # no headers for the kernel
        (there(), {"works": False}, False),
        (there(names=["nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server"]), CANONICAL, False),
        (
            there(names=["nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server"])
            + there("6.8.0-1.1", CANONICALS),
            {**CANONICAL, "own": False},  # nothing is built that would want headers
            True,
        ),
    ],
)
def test_apt_is_not_asked_where_all_is_as_wanted(packages, options, current):
    options = {"system": "Debian 12", "kernel": "6.1.0-50-amd64", "own": True, "works": True, **options}
    works = options.pop("works")
    known = host(**options)
    known["nvidia_driver_facts"] |= {
        "gpus": ["a card"] if works else [],
        "driver": {"loaded": "580.95.05", "packages": packages},
    }
    assert render("nvidia_driver", "{{ __nvidia_driver_current }}", **known) is current
