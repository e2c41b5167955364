"""The lock of those who begin and end an activation, and of those who only look meanwhile."""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zorac_host.refusal import Refusal

# Root's alone: what others can open, they can hold.
_RUN = Path("/run/zorac-deploy")


@contextmanager
def held(shared: bool = False) -> Iterator[None]:
    """Hold the lock of those who begin and end an activation; `shared` with others who only look.

    Raises:
        Refusal: The lock or its folder is a link, somebody else's, or of another kind.
    """
    lock = _RUN / "activation.lock"
    with suppress(FileExistsError):
        _RUN.mkdir(mode=0o700)
    _require_own(_RUN, _RUN.lstat(), stat.S_ISDIR)
    _RUN.chmod(0o700)
    # Not through a link, and without waiting for the other end of a FIFO.
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        _require_own(lock, os.fstat(handle), stat.S_ISREG)
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _require_own(path: Path, found: os.stat_result, kind: Callable[[int], bool]) -> None:
    if not kind(found.st_mode) or found.st_uid != os.geteuid():
        raise Refusal(
            f"{path} is {stat.filemode(found.st_mode)} of user {found.st_uid}. A directory with regular files, owned "
            f"by root, is needed. Remove it with: sudo rm -r {_RUN}",
            "lock-unsafe",
        )
