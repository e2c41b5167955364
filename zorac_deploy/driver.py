"""Plan a host's driver: its branch, its packages and their versions, or why none can be installed.

Names and sources: Ubuntu Server documentation, "NVIDIA drivers installation"; NVIDIA, "Driver Installation Guide",
"Compute-only (Headless) and Desktop-only Installation". Compute only: no X server.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from zorac_deploy.errors import Refused

# Debian's archive has one branch per release.
_DEBIAN_BRANCHES = {"12": "535", "13": "550"}
# NVIDIA called its open modules unfinished for GeForce before this branch.
_OPEN_SINCE = 560
# The kernels of each release. The packages of newer kernels have other names.
_FIRST_KERNELS = {"24.04": "6.8.0-"}
_BOOT_MIB = 200

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """The requested driver, as the role nvidia_driver documents it.

    Attributes:
        distribution: ``Debian`` or ``Ubuntu``.
        release: The version of the distribution, such as ``24.04`` or ``12``.
        managed: Whether zorac-deploy installed the driver.
        held: The packages that zorac-deploy holds.
    """

    distribution: str
    release: str
    source: Literal["nvidia", "distribution"]
    branch: str
    version: str
    modules: str
    managed: bool = False
    held: Sequence[str] = ()


@dataclass(frozen=True)
class Plan:
    """The driver of a host.

    Attributes:
        branch: The branch, as in ``580``.
        version: The wanted version, or the branch, which stands for its newest version.
        pattern: The version as a pattern for apt's pins.
        packages: The packages of the driver.
        versioned: The packages as arguments for apt. The names of Canonical's prebuilt modules include the branch.
        headers: The kernel header packages: for the running kernel, and for later ones.
        kernel_package: The suffix of the package that tracks the kernel; empty for a custom kernel.
        builds: Whether DKMS builds the modules.
        own_key: Whether a key of this host signs them.
        current: It works in the wanted version, and its modules can be rebuilt: apt is not needed.
        others: The packages that zorac-deploy holds in another version. Holds by others stay.
        works: Whether a driver works.
        left_alone: It works, and zorac-deploy did not install it: a desktop may depend on its packages.
        wants: The packages to install.
        versions: The versions: loaded, installed, and of the libraries.
    """

    branch: str
    version: str
    pattern: str
    packages: list[str]
    versioned: list[str]
    headers: list[str]
    kernel_package: str
    builds: bool
    own_key: bool
    current: bool
    others: list[str]
    works: bool
    left_alone: bool
    wants: list[str]
    versions: list[str]

    def summary(self) -> dict[str, Any]:
        """The plan as the role's variables."""
        return asdict(self)


def plan(facts: Facts, wanted: Wanted) -> Plan:
    """Plan the driver for a host with `facts` from the host program."""
    debian = wanted.source == "distribution" and wanted.distribution == "Debian"
    branch = _DEBIAN_BRANCHES[wanted.release] if debian else wanted.version.partition(".")[0] or wanted.branch
    version = wanted.version or branch
    pattern = f"{wanted.version}-*" if wanted.version else f"{branch}.*"
    opened = int(branch) >= _OPEN_SINCE and wanted.modules == "open"
    kernel_package = _kernel_package(wanted, facts["kernel"])
    packages = _packages(wanted, branch, opened, facts, kernel_package)
    builds = any("dkms" in name and "no-dkms" not in name for name in packages)
    headers = [] if facts["kernel_headers"] else [f"linux-headers-{facts['kernel']}"]
    headers += [f"linux-headers-{kernel_package}"] if kernel_package else []
    driver = facts["driver"]
    works = driver["loaded"] is not None and bool(facts["gpus"])
    installed = driver["packages"]
    # after an epoch, such as "1:580.95.05-1"; "580" does not match "5800"
    right = re.compile(rf"(^|:){re.escape(version)}[.-]")
    as_wanted = {
        package["name"]
        for package in installed
        if right.search(package["version"]) or _built_by_canonical(package["name"])
    }
    current = works and bool(facts["kernel_headers"] or not builds) and set(packages) <= as_wanted
    left_alone = works and not wanted.managed
    return Plan(
        branch=branch,
        version=version,
        pattern=pattern,
        packages=packages,
        versioned=[f"{name}={pattern}" for name in packages if not _built_by_canonical(name)]
        + [name for name in packages if _built_by_canonical(name)],
        headers=headers,
        kernel_package=kernel_package,
        builds=builds,
        own_key=bool(facts["secure_boot"]) and builds,
        current=current,
        others=[
            package["name"]
            for package in installed
            if package["name"] in wanted.held and package["held"] and not right.search(package["version"])
        ],
        works=works,
        left_alone=left_alone,
        wants=[] if left_alone or current else (headers if builds else []) + packages,
        versions=list(dict.fromkeys(filter(None, (driver["loaded"], driver["installed"], driver["library"])))),
    )


def check(facts: Facts, wanted: Wanted, host: str, audit: Sequence[str], console_attended: bool) -> None:
    """Require that the driver of `host` can be installed, or works and stays as it is.

    Args:
        facts: The facts from the host program.
        wanted: The requested driver.
        host: The host's name.
        audit: dpkg's list of packages that are half installed, a line each.
        console_attended: Whether a user can reach the host's own screen and keyboard.

    Raises:
        Refused: It cannot be installed; the message says what to do.
    """
    planned, driver = plan(facts, wanted), facts["driver"]
    versions, packaged = " / ".join(planned.versions), bool(driver["packages"])
    if not planned.works and not wanted.managed and packaged:
        raise Refused(
            f"the driver of {host} does not work: {facts['smi_error']}. zorac-deploy did not install it. Versions "
            f"loaded, installed and used by programs: {versions or 'none'}. Reboot first: the driver may have been "
            "upgraded while it was loaded. If that does not help, remove it with: sudo apt-get purge '*nvidia*'. Then "
            "reboot, and re-run the command.",
            "driver-broken",
        )
    if planned.left_alone:
        return
    if driver["run_file"] or (not packaged and driver["loaded"] is not None):
        origin, cure = "its origin is unknown", "the way it was installed"
        if driver["run_file"]:
            origin, cure = "it is from a .run file", "with: sudo nvidia-uninstall"
        raise Refused(
            f"the driver {versions} of {host} does not work: {facts['smi_error']}. No package owns it ({origin}), so "
            "packages cannot replace it. Reboot first: that suffices after an update, and for a GPU that fell off the "
            f"bus. If it still does not work, remove it {cure}, reboot, and re-run the command.",
            "driver-foreign",
        )
    if audit:
        half = "; ".join(line.strip() for line in audit if line.startswith(" "))
        raise Refused(
            f"{host} has half-installed packages: {half}. "
            "Repair them with: sudo dpkg --configure -a; sudo apt-get --fix-broken install",
            "apt-broken",
        )
    if (facts["boot_free_mib"] or 0) < _BOOT_MIB:
        raise Refused(
            f"/boot of {host} has {facts['boot_free_mib']} MiB free. Needed: {_BOOT_MIB}, for an initramfs without "
            "nouveau. Remove old kernels with: sudo apt-get autoremove",
            "boot-full",
        )
    if planned.own_key and not wanted.managed and not console_attended:
        ubuntu = "set nvidia_driver_source: distribution, for Ubuntu's own signed modules, or "
        raise Refused(
            f"Secure Boot is on, and the firmware of {host} has no key for the modules that DKMS builds. If you have "
            "access to its screen and keyboard, set nvidia_driver_console_attended: true. zorac-deploy then creates a "
            "key, and says how to enroll it. If you do not, "
            f"{ubuntu if wanted.distribution == 'Ubuntu' else ''}disable Secure Boot in the firmware's menu.",
            "secure-boot",
        )


def _built_by_canonical(package: str) -> bool:
    return package.startswith("linux-")


def _packages(wanted: Wanted, branch: str, opened: bool, facts: Facts, kernel_package: str) -> list[str]:
    match wanted.source, wanted.distribution:
        case "distribution", "Debian":
            modules = "nvidia-open-kernel-dkms" if opened else "nvidia-kernel-dkms"
            return [modules, "nvidia-kernel-support", "nvidia-smi", "libcuda1", "nvidia-persistenced"]
        case "nvidia", "Debian":
            modules = "nvidia-kernel-open-dkms" if opened else "nvidia-kernel-dkms"
            return [modules, "nvidia-driver-cuda", "nvidia-persistenced"]
        case "nvidia", "Ubuntu":
            rest = ("libnvidia-compute", "nvidia-utils", "nvidia-compute-utils")
            return [f"nvidia-dkms-{branch}{'-open' if opened else ''}", *(f"{name}-{branch}" for name in rest)]
    name = f"{branch}-server{'-open' if opened else ''}"
    # Canonical signs the modules that it built for one kernel each: for the running kernel, and for each later one from
    # the kernel's package. DKMS builds for any kernel, and signs with a key of this host.
    built = [f"linux-modules-nvidia-{name}-{facts['kernel']}", f"linux-modules-nvidia-{name}-{kernel_package}"]
    modules_of = built if facts["secure_boot"] else [f"nvidia-dkms-{name}"]
    return [*modules_of, f"nvidia-headless-no-dkms-{name}", f"nvidia-utils-{branch}-server"]


def _kernel_package(wanted: Wanted, kernel: str) -> str:
    """Debian's names end like the kernel's; Ubuntu's newer kernels have other package names."""
    if wanted.distribution == "Debian":
        match = re.search(r"(cloud-|rt-)?amd64$", kernel)
        return match[0] if match else ""
    match = re.search(r"[a-z]+$", kernel)
    newer = kernel.endswith("-generic") and not kernel.startswith(_FIRST_KERNELS.get(wanted.release, ""))
    return (match[0] if match else "") + (f"-hwe-{wanted.release}" if newer else "")
