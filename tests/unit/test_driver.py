"""zorac_deploy/driver.py: the requested packages, on hosts that are not available here, and the refusals."""

import pytest

from zorac_deploy import actions, driver
from zorac_deploy.errors import Refused

NO_DRIVER = {"loaded": None, "installed": None, "library": None, "packages": [], "run_file": False}


def facts(kernel="6.8.0-134-generic", secure_boot=False, own=False, gpus=(), **changes):
    """The facts of a host; with `own` its kernel has headers without a package."""
    return {
        "kernel": kernel,
        "kernel_headers": own,
        "secure_boot": secure_boot,
        "boot_free_mib": 5000,
        "smi_error": "nvidia-smi is not installed",
        "gpus": list(gpus),
        "driver": NO_DRIVER | changes,
    }


def wanted(system="Ubuntu 24.04", **changes):
    distribution, release = system.split()
    usual = {"source": "nvidia", "branch": "580", "version": "", "modules": "open"}
    return driver.Wanted(distribution=distribution, release=release, **usual | changes)


def planned(system="Ubuntu 24.04", **options):
    fields = {name: options.pop(name) for name in ("source", "branch", "version", "modules") if name in options}
    return driver.plan(facts(**options), wanted(system, **fields))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (
            {},
            ["nvidia-dkms-580-open", "libnvidia-compute-580", "nvidia-utils-580", "nvidia-compute-utils-580"],
        ),
        (
            {"version": "590.44.01"},
            ["nvidia-dkms-590-open", "libnvidia-compute-590", "nvidia-utils-590", "nvidia-compute-utils-590"],
        ),
        (
            {"modules": "proprietary"},
            ["nvidia-dkms-580", "libnvidia-compute-580", "nvidia-utils-580", "nvidia-compute-utils-580"],
        ),
        (
            {"source": "distribution"},
            ["nvidia-dkms-580-server-open", "nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server"],
        ),
        (
            {"source": "distribution", "secure_boot": True},
            [
                "linux-modules-nvidia-580-server-open-6.8.0-134-generic",
                "linux-modules-nvidia-580-server-open-generic",
                "nvidia-headless-no-dkms-580-server-open",
                "nvidia-utils-580-server",
            ],
        ),
        ({"system": "Debian 13"}, ["nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced"]),
        (
            {"system": "Debian 12", "modules": "proprietary"},
            ["nvidia-kernel-dkms", "nvidia-driver-cuda", "nvidia-persistenced"],
        ),
        (
            {"system": "Debian 13", "source": "distribution"},  # 550: its open modules are not for this GPU
            ["nvidia-kernel-dkms", "nvidia-kernel-support", "nvidia-smi", "libcuda1", "nvidia-persistenced"],
        ),
    ],
)
def test_packages(options, names):
    assert planned(**options).packages == names


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
def test_headers_are_for_the_running_kernel_and_for_later_ones(system, kernel, headers):
    assert planned(system, kernel=kernel).headers == headers


def test_a_kernel_with_its_headers_needs_no_header_package():
    assert planned("Debian 12", kernel="6.9.1-mine", own=True).headers == []


@pytest.mark.parametrize(("version", "pattern"), [("", "580.*"), ("580.95.05", "580.95.05-*")])
def test_the_pin_is_the_branch_or_the_version(version, pattern):
    assert planned(version=version).pattern == pattern


def test_packages_have_versions_unless_the_name_has_the_branch():
    asked = planned(source="distribution", secure_boot=True, kernel="6.8.0-1-aws").versioned
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
        ({"secure_boot": True, "source": "distribution"}, False),
        ({"secure_boot": True, "source": "distribution", "system": "Debian 12"}, True),
        ({"secure_boot": None}, False),
    ],
)
def test_an_own_signing_key_is_for_modules_that_dkms_builds(options, own):
    assert planned(**{"kernel": "6.1.0-50-amd64", **options}).own_key is own


def there(version="580.95.05-1", names=("nvidia-kernel-open-dkms", "nvidia-driver-cuda", "nvidia-persistenced")):
    return [{"name": name, "version": version, "held": True} for name in names]


CANONICALS = ("linux-modules-nvidia-580-server-open-6.8.0-1-aws", "linux-modules-nvidia-580-server-open-aws")
CANONICAL = {
    "system": "Ubuntu 24.04",
    "kernel": "6.8.0-1-aws",
    "source": "distribution",
    "secure_boot": True,
}


@pytest.mark.parametrize(
    ("packages", "options", "current"),
    [
        (there(), {}, True),
        (there("1:580.95.05-1"), {"version": "580.95.05"}, True),
        (there(), {"version": "580.65.06"}, False),
        (there("590.44.01-1"), {}, False),
        (there("5800.1-1"), {}, False),
        (there()[1:], {}, False),
        (there(), {"modules": "proprietary"}, False),
        (there(), {"own": False}, False),  # no headers for the kernel
        (there(), {"works": False}, False),
        (there(names=["nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server"]), CANONICAL, False),
        (
            there(names=["nvidia-headless-no-dkms-580-server-open", "nvidia-utils-580-server"])
            + there("6.8.0-1.1", CANONICALS),
            {**CANONICAL, "own": False},  # no module is built that needs headers
            True,
        ),
    ],
)
def test_apt_is_not_used_if_nothing_changes(packages, options, current):
    options = {"system": "Debian 12", "kernel": "6.1.0-50-amd64", "own": True, "works": True, **options}
    gpus = ["a card"] if options.pop("works") else []
    assert planned(**options, gpus=gpus, loaded="580.95.05", packages=packages).current is current


def test_our_holds_in_another_version_are_released():
    held = [*there("590.44.01-1"), {"name": "theirs", "version": "590.44.01-1", "held": True}]
    found = driver.plan(facts(packages=held), wanted("Debian 12", managed=True, held=["nvidia-driver-cuda"]))
    assert found.others == ["nvidia-driver-cuda"]


WORKS = {"loaded": "535.54", "installed": "535.54", "library": None, "gpus": ["a card"]}


def test_a_foreign_working_driver_is_not_changed():
    found = driver.plan(facts(**WORKS), wanted("Debian 12"))
    assert (found.left_alone, found.wants, found.versions) == (True, [], ["535.54"])
    driver.check(facts(**WORKS, secure_boot=True), wanted("Debian 12"), "tower", [" half"], console_attended=False)
    assert not driver.plan(facts(**WORKS), wanted("Debian 12", managed=True)).left_alone


@pytest.mark.parametrize(
    ("changes", "fields", "refusal", "says"),
    [
        (
            {"packages": there(), "loaded": "580.95", "installed": "580.65"},
            {},
            "driver-broken",
            "580.95 / 580.65. Reboot",
        ),
        ({"packages": there()}, {}, "driver-broken", "used by programs: none"),
        ({"run_file": True}, {}, "driver-foreign", "with: sudo nvidia-uninstall"),
        ({"loaded": "535.54"}, {}, "driver-foreign", "driver 535.54 of tower does not work.*its origin is unknown"),
        ({"boot": 12}, {}, "boot-full", "has 12 MiB free"),
        ({"boot": None}, {}, "boot-full", "has None MiB free"),
        (
            {"audit": ["The following packages:", " one  an editor", " two"]},
            {},
            "apt-broken",
            "packages: one  an editor; two.",
        ),
        ({"secure_boot": True}, {}, "secure-boot", "firmware of tower has no key.*source: distribution"),
        ({"secure_boot": True}, {"system": "Debian 12"}, "secure-boot", "If you do not, disable Secure Boot"),
    ],
)
def test_a_driver_that_cannot_be_installed_is_refused(changes, fields, refusal, says):
    known = facts(**{name: value for name, value in changes.items() if name not in ("audit", "boot")})
    known["boot_free_mib"] = changes.get("boot", 5000)
    with pytest.raises(Refused, match=says) as refused:
        driver.check(known, wanted(**fields), "tower", changes.get("audit", []), console_attended=False)
    assert refused.value.refusal == refusal


def test_a_key_can_be_enrolled_at_the_screen_once():
    driver.check(facts(secure_boot=True), wanted(), "tower", [], console_attended=True)
    driver.check(facts(secure_boot=True), wanted(managed=True), "tower", [], console_attended=False)


def test_the_action_returns_the_refusal():
    asked = {"facts": facts(run_file=True), "wanted": vars(wanted()), "host": "tower", "audit": []}
    assert actions.check_driver({**asked, "console_attended": False})["refusal"]["id"] == "driver-foreign"
    assert actions.check_driver({**asked, "facts": facts(), "console_attended": False}) == {}
