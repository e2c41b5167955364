"""The root file system that sandbox hosts share: built once by mmdebstrap, then read-only."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from zorac_deploy.errors import SandboxError
from zorac_deploy.sandbox import paths

# The packages of a Debian server installation that minbase lacks, as far as Ansible and the units need them.
_PACKAGES = [
    "systemd",
    "systemd-sysv",
    "systemd-timesyncd",
    "dbus",
    "udev",
    "kmod",
    "libpam-systemd",
    "openssh-server",
    "sudo",
    "python3",
    "python3-apt",
    "ca-certificates",
    "iproute2",
    "iputils-ping",
    "procps",
    "curl",
    "less",
]

RELEASES = {"debian12": "bookworm", "debian13": "trixie"}


def path(distribution: str) -> Path:
    """The path of the image of `distribution`: its name is a digest of its inputs."""
    recipe = hashlib.sha256(" ".join([RELEASES[distribution], "with lists", *_PACKAGES]).encode()).hexdigest()[:8]
    return paths.cache() / "images" / f"{distribution}-{recipe}"


def ensure(distribution: str, mirror: str | None = None) -> Path:
    """Build the image of `distribution` unless it is there (about half a minute, 300 MB), and return it.

    Args:
        distribution: A key of `RELEASES`.
        mirror: The Debian archive to take packages from; by default this machine's own.

    Raises:
        SandboxError: mmdebstrap is missing or failed, or no archive is known.
    """
    image = path(distribution)
    if image.is_dir():
        return image
    if shutil.which("mmdebstrap") is None:
        raise SandboxError("mmdebstrap is not installed. Type: apt-get install mmdebstrap systemd-container")
    with paths.locked(image.parent):
        if not image.is_dir():
            _build(image, distribution, mirror or _own_mirror())
    return image


def _build(image: Path, distribution: str, mirror: str) -> None:
    partial = image.with_name(f"{image.name}.{os.getpid()}.partial")
    try:
        build = subprocess.run(
            [
                "mmdebstrap",
                "--quiet",
                "--variant=minbase",
                "--skip=cleanup/apt/lists",  # an installed server has its package lists
                "--mode=root",
                f"--include={','.join(_PACKAGES)}",
                RELEASES[distribution],
                str(partial),
                mirror,
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if build.returncode != 0:
            raise SandboxError(f"mmdebstrap could not build {distribution}:\n{build.stderr.strip()[-2000:]}")
        # each host creates its own
        for unique in ("etc/machine-id", "var/lib/dbus/machine-id", *_glob(partial, "etc/ssh/ssh_host_*")):
            (partial / unique).unlink(missing_ok=True)
        partial.rename(image)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _glob(base: Path, pattern: str) -> list[str]:
    return [str(found.relative_to(base)) for found in base.glob(pattern)]


def _own_mirror() -> str:
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
    )
    for line in targets.stdout.splitlines():
        origin, label, component, uri = line.split("|")
        if (origin, label, component) == ("Debian", "Debian", "main"):
            return uri
    raise SandboxError(
        "apt on this machine has no Debian archive. Update its lists with apt-get update, or name an archive with "
        "--mirror URL."
    )
