"""Unpack a bundle once on the controller, and return the host settings for it."""

import contextlib
import shutil
import tarfile
from pathlib import Path

import platformdirs

from zorac_deploy.bundle import about as contents
from zorac_deploy.bundle.about import MODEL, PACKAGES, SOURCES, WHEELS, About, OnStep
from zorac_deploy.bundle.parts import Hashed, Reader, entry
from zorac_deploy.errors import Refused, ZoracDeployError


def unpack(folder: Path, on_step: OnStep = lambda *_: None) -> dict[str, object]:
    """Verify the bundle in `folder` and unpack it into the user's cache, unless it is there already.

    Wheels and packages stay archives: one large file is copied faster than many small ones.

    Returns:
        The settings of the host, by the names of the roles' variables.

    Raises:
        Refused: The bundle is damaged, or the cache has no space for it.
    """
    description = contents.read(folder)
    unpacked = platformdirs.user_cache_path("zorac-deploy") / "bundles" / contents.digest(folder)[:16]
    partial = unpacked.with_suffix(".partial")
    if not unpacked.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            require_room(partial, description.bytes, "unpacking the bundle")
            _unpack(folder, description, partial, on_step)
            partial.rename(unpacked)
        except OSError as fault:
            raise ZoracDeployError(f"cannot unpack {folder}: {fault}.") from None
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return _variables(description, unpacked)


def require_room(folder: Path, needed: int, action: str) -> None:
    """Require `needed` free bytes on the file system of `folder`.

    Raises:
        Refused: They are not free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise Refused(
            f"{action} needs {needed / 2**30:.1f} GiB under {folder}, but {free / 2**30:.1f} GiB are free. Free some.",
            "disk-full",
        )


def _unpack(folder: Path, description: About, target: Path, on_step: OnStep) -> None:
    stream = Reader(folder, description.parts, on_step)
    try:
        digests = _extract(stream, description, target)
    except (tarfile.TarError, ValueError) as fault:
        stream.drain()  # raises for a damaged part, which may be the cause
        raise contents.damaged(f"cannot unpack {folder}: {fault}.") from None
    stream.drain()
    if digests != {file.path: file.sha256 for file in description.files}:
        raise contents.damaged(f"the parts of {folder} do not contain the files that bundle.json lists.")


def _extract(stream: Reader, description: About, target: Path) -> dict[str, str]:
    """Unpack what `description` lists, wheels and packages into one archive each; return the SHA-256 of each file."""
    digests = {}
    listed = {file.path for file in description.files}
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(tarfile.open(fileobj=stream, mode="r|", bufsize=1 << 20))
        archives = {name: stack.enter_context(tarfile.open(target / f"{name}.tar", "w")) for name in (WHEELS, PACKAGES)}
        for member in source:
            data = source.extractfile(member)
            if member.name not in listed or data is None:
                raise ValueError(f"{member.name} is not in bundle.json")
            hashed = Hashed(data)
            top, _, name = member.name.partition("/")
            if top in archives:
                archives[top].addfile(entry(name, member.size), hashed)
            else:
                path = target / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    shutil.copyfileobj(hashed, file, 1 << 20)
            digests[member.name] = hashed.hexdigest()
    return digests


def _variables(description: About, unpacked: Path) -> dict[str, object]:
    return {
        "model_weights_source": str(unpacked / MODEL / description.model.name),
        "engine_wheels": str(unpacked / f"{WHEELS}.tar"),
        "engine_wheels_for": {
            "lock": description.engine.lock,
            "lock_sha256": description.engine.lock_sha256,
            "python": description.python,
            "bytes": (unpacked / f"{WHEELS}.tar").stat().st_size,
        },
        "llama_cpp_archive": "".join(map(str, (unpacked / SOURCES).glob("*"))),
        "offline_packages_archive": str(unpacked / f"{PACKAGES}.tar"),
        "offline_packages_bytes": (unpacked / f"{PACKAGES}.tar").stat().st_size,
        "offline_packages_system": description.system,
        "offline_packages_names": list(description.packages),
    }
