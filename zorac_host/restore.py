"""Put back what was changed beside the roles and needs no source: modes, owners, files that were added, drop-ins.

What was added is set aside, not deleted: somebody may want it. Content that is missing or changed is for the roles.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from zorac_host import kinds, service, store, tree
from zorac_host.kinds import Difference, Part

SET_ASIDE = store.STATE / "set-aside"


def restore(parts: Sequence[Part], found: Sequence[Difference], check: bool) -> list[str]:
    """Put back what can be, and say what was.

    Args:
        parts: The parts of the document.
        found: What differs from them.
        check: Only say what would be put back.

    Returns:
        A line for each thing.
    """
    by_part = {(part["kind"], kinds.named(part)): part for part in parts}
    done: list[str] = []
    reload = False
    for difference in found:
        part = by_part.get((difference.kind, difference.part), {})
        for what, act in _steps(part, difference):
            done.append(what)
            if not check:
                act()
                reload |= difference.kind == "unit"
    if reload:
        service.systemctl("daemon-reload")
    return done


def _steps(part: Part, difference: Difference) -> Iterator[tuple[str, Callable[[], object]]]:
    """What there is to do about `difference`, in words and as something to call."""
    place = difference.part
    match difference.kind, difference.aspect:
        case "tree", "mode" | "owner" | "group" if difference.names:
            yield f"{place}: {difference.aspect} of {len(difference.names)} files", lambda: _tree_access(part)
        case "file" | "folder" | "tree", "mode" | "user" | "group" | "access list":
            yield f"{place}: {difference.aspect} {difference.expected}", lambda: _access(part)
        case "folder" | "tree", "added":
            for name in difference.names:
                yield f"{place}/{name} set aside", lambda name=name: _set_aside(Path(place) / name)  # type: ignore[misc]
        case "absent", _:
            yield f"{place} set aside", lambda: _set_aside(Path(place))
        case "unit", "drop-ins":
            for name in set(difference.names) - set(part.get("drop_ins", [])):
                yield f"{name} set aside", lambda name=name: _set_aside(Path(name))  # type: ignore[misc]
        case "unit", "loaded" if difference.found == "masked":
            yield f"{place} unmasked", lambda: service.systemctl("unmask", place)
        case "unit", "daemon-reload":
            yield f"{place}: daemon-reload", lambda: None


def _access(part: Part) -> None:
    path = part["path"]
    for aspect in ("user", "group"):
        if aspect in part:
            shutil.chown(path, **{aspect: part[aspect]})
    if "mode" in part:
        Path(path).chmod(int(part["mode"], 8))
    if "system.posix_acl_access" in os.listxattr(path):
        os.removexattr(path, "system.posix_acl_access")


def _tree_access(part: Part) -> None:
    folder = Path(part["path"])
    wanted, found = tree.read_record(part)["entries"], tree.entries(folder)
    for name in wanted.keys() & found.keys():
        kind, mode, user, group = wanted[name][:4]
        if found[name][0] != kind or found[name][1:4] == [mode, user, group]:
            continue
        os.chown(folder / name, user, group, follow_symlinks=False)
        if kind != "l":
            (folder / name).chmod(mode)


def _set_aside(path: Path) -> None:
    """Move what is at `path` to where nothing looks for it, under its own path."""
    if not path.is_symlink() and not path.exists():
        return  # a folder that was added takes its files along
    place = SET_ASIDE / time.strftime("%Y%m%d-%H%M%S") / str(path).lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    SET_ASIDE.chmod(0o700)
    shutil.move(path, place)


def summary(done: Sequence[str]) -> dict[str, Any]:
    """As it is printed."""
    return {"changed": bool(done), "restored": list(done)}
