"""The lock for the start and the end of an activation, and for readers."""

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from zorac_host.refusal import Refusal

# Only root can open it: a user who can open a lock can hold it.
_RUN = Path("/run/zorac-deploy")


@contextmanager
def held(shared: bool = False) -> Iterator[None]:
    """Hold the lock; `shared` with other readers.

    Raises:
        Refusal: The lock or its directory is a link, not owned by root, or of another type.
    """
    lock = _RUN / "activation.lock"
    with suppress(FileExistsError):
        _RUN.mkdir(mode=0o700)
    _require_own(_RUN, _RUN.lstat(), stat.S_ISDIR)
    _RUN.chmod(0o700)
    # Do not follow a link, or wait for the other end of a FIFO.
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        _require_own(lock, os.fstat(handle), stat.S_ISREG)
        fcntl.flock(handle, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _require_own(path: Path, status: os.stat_result, kind: Callable[[int], bool]) -> None:
    if not kind(status.st_mode) or status.st_uid != os.geteuid():
        raise Refusal(
            f"{path} is {stat.filemode(status.st_mode)} of user {status.st_uid}. A directory with regular files, owned "
            f"by root, is needed. Remove it with: sudo rm -r {_RUN}",
            "lock-unsafe",
        )
