"""Download Debian packages and their dependencies with apt, which verifies them."""

import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from zorac_deploy.bundle.about import OnStep
from zorac_deploy.errors import ZoracDeployError


def system() -> str:
    """The system that this machine runs, such as ``debian12`` or ``ubuntu24.04``."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return "unknown"
    return release["ID"] + release.get("VERSION_ID", "")


def download(names: Sequence[str], folder: Path, on_step: OnStep) -> tuple[str, ...]:
    """Download `names` and every dependency that a minimal system might lack, and index them in ``Packages`` for apt.

    apt is told that nothing is installed, and uses its own lists for that: root is not needed.

    Returns:
        The names of the packages in `folder`.

    Raises:
        ZoracDeployError: apt does not know a package, or cannot reach its archives.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if not names:
        return ()
    with tempfile.TemporaryDirectory(dir=folder.parent) as state:
        return _download(names, folder, Path(state), on_step)


def _download(names: Sequence[str], folder: Path, state: Path, on_step: OnStep) -> tuple[str, ...]:
    for needed in ("lists/partial", "archives/partial"):
        (state / needed).mkdir(parents=True)
    (state / "status").touch()
    options = [f"-oDir::State={state}", f"-oDir::State::status={state}/status", f"-oDir::Cache={state}"]
    options += ["-oAPT::Architecture=amd64", "-oAPT::Install-Recommends=false", "--quiet"]
    on_step("download the Debian packages", "lists of the archives")
    _run("apt-get", *options, "update")
    on_step("download the Debian packages", " ".join(names))
    _run("apt-get", *options, "--yes", "--download-only", "install", *names)
    files = {}
    for file in sorted((state / "archives").glob("*.deb")):
        name, version, _ = file.stem.split("_")
        files[name, unquote(version)] = file
    listing = _run("apt-cache", *options, "show", *(f"{name}={version}" for name, version in files))
    listed = {}
    for entry in listing.strip().split("\n\n"):
        fields = dict(re.findall(r"(?m)^(Package|Version): (.+)$", entry))
        name, version = fields["Package"], fields["Version"]
        plain = f"{name}_{version.replace(':', '.')}.deb"  # an epoch's colon would be part of an archive's URL
        shutil.copyfile(files[name, version], folder / plain)
        listed[name] = re.sub(r"(?m)^Filename: .*$", f"Filename: ./{plain}", entry)
    (folder / "Packages").write_text("\n\n".join(listed.values()) + "\n")
    return tuple(sorted(listed))


def _run(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        message = done.stderr.strip() or done.stdout.strip()
        raise ZoracDeployError(
            f"cannot download the Debian packages; {command[0]} reported:\n{message[-1000:]}\n"
            "To create a bundle without them, add --no-packages."
        )
    return done.stdout
