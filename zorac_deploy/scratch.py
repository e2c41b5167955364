"""Folders for the time of a run: for this user only, removed at its end, and swept later if the run was killed."""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from zorac_deploy.errors import ZoracDeployError

# The socket of an SSH session is in such a folder, and its path has room for 104 bytes on macOS. ssh itself needs 17 of
# them for a name that it gives it first.
_LONGEST = 60


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A new folder. It is removed at the end of the context; the folders that killed runs left are removed before.

    Raises:
        ZoracDeployError: There is no place for it.
    """
    try:
        root = _root()
        with _locked(root):
            _sweep(root)
            made = Path(tempfile.mkdtemp(dir=root, prefix=""))
            held = _lock(made)
    except OSError as fault:
        raise ZoracDeployError(
            f"cannot create a directory for temporary files: {fault}. Set XDG_RUNTIME_DIR to a directory of yours."
        ) from None
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(held)


def _root() -> Path:
    """The folder of all such folders: in memory where the system keeps one for this user, and its path short."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    choices = [Path(runtime) / "zorac-deploy"] if runtime and Path(runtime).is_dir() else []
    choices += [platformdirs.user_cache_path("zorac-deploy") / "run", Path(f"/tmp/zorac-deploy-{os.geteuid()}")]  # noqa: S108 - checked below
    root = next(choice for choice in choices if len(os.fsencode(choice)) <= _LONGEST)
    root.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(f"{root} is not a directory of yours")
    root.chmod(0o700)
    return root


def _sweep(root: Path) -> None:
    """Remove the folders whose run has ended: nobody holds their lock."""
    for left in root.iterdir():
        with contextlib.suppress(OSError), _locked(left, fcntl.LOCK_NB):
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path, how: int = 0) -> Iterator[None]:
    held = _lock(path, how)
    try:
        yield
    finally:
        os.close(held)


def _lock(path: Path, how: int = 0) -> int:
    """Lock `path` for as long as this process has the returned descriptor open. Programs that it starts do not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
