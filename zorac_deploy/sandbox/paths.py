"""The directories of sandboxes: state that is removed with a host, and a cache that may be deleted at any time."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

import platformdirs

_APP = "zorac-deploy"


def hosts() -> Path:
    """One directory per sandbox host."""
    return platformdirs.user_state_path(_APP) / "sandbox"


def cache() -> Path:
    """Base images, the demo model, and uv's download cache."""
    return platformdirs.user_cache_path(_APP)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Wait until no other run creates something in `folder`, and keep others waiting."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
