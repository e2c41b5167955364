"""Directories for the duration of a run: private to this user, removed at its end. A killed run's are removed later."""

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

# Such a directory has the socket of an SSH session. A socket's path has room for 104 bytes on macOS, of which ssh needs
# 17 for a temporary name.
_LONGEST = 60


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Create a directory, and remove it at the end of the context.

    The directories of killed runs are removed first.

    Raises:
        ZoracDeployError: No writable directory was found.
    """
    try:
        root = _root()
        with _locked(root):
            _sweep(root)
            made = Path(tempfile.mkdtemp(dir=root, prefix=""))
            descriptor = _lock(made)
    except OSError as fault:
        raise ZoracDeployError(
            f"cannot create a directory for temporary files: {fault}. Set XDG_RUNTIME_DIR to a directory of yours."
        ) from None
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        os.close(descriptor)


def _root() -> Path:
    """The parent of all such directories: with a short path, and in memory if the system has a place for this user."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    choices = [Path(runtime) / "zorac-deploy"] if runtime and Path(runtime).is_dir() else []
    choices += [platformdirs.user_cache_path("zorac-deploy") / "run", Path(f"/tmp/zorac-deploy-{os.geteuid()}")]  # noqa: S108 - checked below
    root = next(choice for choice in choices if len(os.fsencode(choice)) <= _LONGEST)
    root.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        root.mkdir(mode=0o700)
    status = root.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(f"{root} is not a directory of yours")
    root.chmod(0o700)
    return root


def _sweep(root: Path) -> None:
    """Remove the directories of runs that have ended: their lock is free."""
    for left in root.iterdir():
        with contextlib.suppress(OSError), _locked(left, fcntl.LOCK_NB):
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path, how: int = 0) -> Iterator[None]:
    descriptor = _lock(path, how)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, how: int = 0) -> int:
    """Lock `path` for as long as this process keeps the returned descriptor open. Child processes do not inherit it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
