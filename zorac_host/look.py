"""The state of this host before a deployment: disk space, accounts, packages, the Python version."""

import fcntl
import grp
import hashlib
import os
import platform
import pwd
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from zorac_host import store
from zorac_host.refusal import Refusal

_SYSTEM_UIDS = 1000
_HOME, _SHELL = "/nonexistent", "/usr/sbin/nologin"
# apt holds the first while it installs, and the second while it updates its lists.
_APT_LOCKS = (Path("/var/lib/dpkg/lock-frontend"), Path("/var/lib/apt/lists/lock"))


def python() -> str:
    """The version of the running Python, such as ``3.11``."""
    return ".".join(platform.python_version_tuple()[:2])


def disk(path: Path) -> dict[str, Any]:
    """Whether `path` exists, and the free bytes and the id of its file system.

    For a missing path, those of the nearest existing parent.
    """
    folder = next(candidate for candidate in (path, *path.parents) if candidate.is_dir())
    return {
        "exists": path.exists(),
        "free": shutil.disk_usage(folder).free,
        "device": folder.stat().st_dev,
    }


def used(folder: Path) -> int:
    """The size of the files below `folder`; 0 if it does not exist."""
    return sum(os.lstat(Path(root, name)).st_blocks * 512 for root, _, names in os.walk(folder) for name in names)


def packages() -> list[str]:
    """The names of the installed packages."""
    return [name for state, name in _dpkg("${Package}") if state[1:2] == "i"]


def versions() -> dict[str, list[str]]:
    """The packages present, even if half installed, as ``name=version``; and the names of those held."""
    present = [(state, text) for state, text in _dpkg("${binary:Package}=${Version}") if state[1:2] not in ("n", "c")]
    held = [text.partition("=")[0] for state, text in present if state[:1] == "h"]
    return {"versions": [text for _, text in present], "held": held}


def _dpkg(shown: str) -> Iterator[tuple[str, str]]:
    """The state of each package that dpkg knows, with the field `shown`."""
    command = ("dpkg-query", "--show", f"--showformat=${{db:Status-Abbrev}}|{shown}\n")
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        state, _, text = line.partition("|")
        yield state, text


def apt_locks() -> list[str]:
    """The processes that install packages or update the lists of packages."""
    holders = filter(None, map(lock_holder, _APT_LOCKS))
    return list(dict.fromkeys(f"{holder['name']}, process {holder['pid']}" for holder in holders))


def lock_holder(path: Path) -> dict[str, Any] | None:
    """The process with the lock `path`; the lock is not taken."""
    ask = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    try:
        with path.open("rb") as file:
            kind, _, _, _, pid = struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, ask))
    except OSError:
        return None
    if kind == fcntl.F_UNLCK:
        return None
    name = Path(f"/proc/{pid}/comm")
    return {"pid": pid, "name": name.read_text().strip() if name.exists() else "unknown"}


def account(name: str, engines: Path) -> dict[str, Any]:
    """The account called `name`, and whether zorac-deploy created it.

    Args:
        name: The name.
        engines: The directory of the engines, which shows that an earlier version deployed.

    Returns:
        ``found`` is a description of the account, None for none; ``ours`` whether zorac-deploy created it; ``ready``
        whether it is recorded and unchanged; ``made`` the names of all created accounts; ``serves`` the user that the
        engine runs as now, or an empty text.
    """
    recorded = _lines(store.STATE / "users.txt")
    user, group = _user(name), _has_group(name)
    description = f"group {name}" if group else None
    as_made = False
    if user:
        description = f"user {name} (uid {user.pw_uid}, home {user.pw_dir}, shell {user.pw_shell})"
        as_made = (user.pw_uid < _SYSTEM_UIDS, user.pw_dir, user.pw_shell) == (True, _HOME, _SHELL)
    # recorded, or, where an earlier version deployed, as that version created it
    ours = name in recorded or (as_made and any(path.exists() for path in (store.ETC, store.STATE, engines)))
    made = list(dict.fromkeys([*recorded, *([name] if ours else [])]))
    ready = name in recorded and as_made and user is not None and not other_groups(user)
    return {"found": description, "ours": ours, "ready": ready, "made": made, "serves": next(_serving(), "")}


def other_groups(user: pwd.struct_passwd) -> list[str]:
    """The names of the groups that `user` has besides its own."""
    return sorted(group_name(group) for group in os.getgrouplist(user.pw_name, user.pw_gid) if group != user.pw_gid)


def group_name(number: int) -> str:
    """The name of a group, or its number if it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)


def api_key(file: Path) -> dict[str, Any]:
    """The state of the API key in `file`.

    Returns:
        ``sha256`` of the current key, None for none; ``ready`` whether only root can read it.
    """
    try:
        status = file.stat()
        digest = hashlib.sha256(file.read_bytes().strip()).hexdigest()
    except FileNotFoundError:
        return {"sha256": None, "ready": False}
    return {"sha256": digest, "ready": (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o600, 0, 0)}


def require_space(needs: Iterable[Mapping[str, Any]]) -> None:
    """Require that each file system has space for all that goes there.

    Args:
        needs: The ``bytes`` for ``what`` under each ``path``, and the ``setting`` of that path, if any.

    Raises:
        Refusal: A file system has not enough space.
    """
    systems: dict[int, list[Mapping[str, Any]]] = {}
    free: dict[int, int] = {}
    for need in needs:
        space = disk(Path(need["path"]))
        systems.setdefault(space["device"], []).append(need)
        free[space["device"]] = space["free"]
    for device, all_of_it in systems.items():
        total = sum(int(need["bytes"]) for need in all_of_it)
        if total > free[device]:
            listed = ", ".join(f"{_size(int(n['bytes']))} for {n['what']} under {n['path']}" for n in all_of_it)
            settings = " or ".join(need["setting"] for need in all_of_it if need.get("setting"))
            raise Refusal(
                f"a file system has {_size(free[device])} free, but {_size(total)} are needed: {listed}. "
                f"Free some space, or set {settings} to a directory on another disk.",
                "disk-no-space",
            )


def _size(size: float) -> str:
    """Format a number of bytes, as in ``1.50 GB``."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1024:
            return f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} TB"


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _serving() -> Iterator[str]:
    for file in sorted(store.CURRENT.glob("*.service")):
        yield from (line.removeprefix("User=") for line in _lines(file) if line.startswith("User="))


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").split("\n")[:-1]
    except OSError:
        return []
