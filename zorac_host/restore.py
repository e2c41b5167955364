"""Restore what was changed outside of the roles and needs no source: modes, owners, added files, drop-ins.

Added files are moved aside, not deleted: the user may need them. Missing or changed content is for the roles.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from zorac_host import kinds, service, store, tree, verify
from zorac_host.kinds import Difference, Part

# systemd reports the start in whole seconds
_STEADY_SECONDS = 2.0
SET_ASIDE = store.STATE / "set-aside"
_Step: TypeAlias = tuple[str, Callable[[], object]]


def restore(check: bool, begin: bool = False, deep: bool = False, intact: bool = False) -> dict[str, Any]:
    """Restore what is possible, and return what was restored.

    Args:
        check: Only say what would be restored.
        begin: More changes will follow in any case: until they are recorded, the document is not valid.
        deep: Also read every byte of engine and model.
        intact: The caller compared the host a moment ago, and nothing differed: do not compare again.

    Returns:
        ``restored``, a line for each thing; ``differences``, left for the roles; ``trees``, the directories with
        many files that are unchanged; ``changed``.
    """
    try:
        document = verify.read()
    except verify.Unusable as reason:
        return {"changed": False, "restored": [], "differences": [], "trees": [], "unusable": str(reason)}
    if begin and not check:
        document["inputs"] = ""
        verify.note(document)
    differences = [] if intact else verify.differences(document["parts"], deep)
    by_part = {(part["kind"], kinds.named(part)): part for part in document["parts"]}
    steps = [
        (difference, step)
        for difference in differences
        for step in _steps(by_part.get((difference.kind, difference.part), {}), difference)
    ]
    restored = [line for _, (line, _) in steps]
    if check or not steps:
        healed = [difference for difference, _ in steps]
        left = [difference for difference in differences if difference not in healed] + verify.outdated(document)
    else:
        restored, left = _carry_out(document, steps, deep)
    trees = {part["path"] for part in document["parts"] if part["kind"] == "tree" and part.get("fingerprint")}
    return {
        "changed": bool(restored),
        "restored": restored,
        "differences": [difference.summary() for difference in left],
        "trees": sorted(trees - {difference.part for difference in left}),
        "unusable": "",
    }


def _carry_out(
    document: dict[str, Any], steps: Sequence[tuple[Difference, _Step]], deep: bool
) -> tuple[list[str], list[Difference]]:
    """Do `steps`; return those done, and the remaining differences. Without any, the document is valid again.

    What cannot be restored, such as an immutable file, stays a difference and does not stop the others.
    """
    done = []
    inputs, current = document["inputs"], store.current()
    started = service.started(current.unit) if current else None
    # before the first step, so that a killed run leaves it recorded
    reason = next(
        (
            why
            for difference, _ in steps
            if current and started and (why := _restart(difference, current.unit, started))
        ),
        "",
    )
    document["inputs"] = ""
    _note(document, current, reason)
    for _, (line, act) in steps:
        with contextlib.suppress(OSError):
            act()
            done.append(line)
    if any(difference.kind == "unit" for difference, _ in steps):
        service.systemctl("daemon-reload")
    if reason:
        _note(document, current, reason)  # the engine may have been restarted meanwhile
    left = verify.differences(document["parts"], deep) + verify.outdated(document)
    if not left:
        verify.note(document, inputs=inputs)
    return done, left


def _note(document: dict[str, Any], current: store.Generation | None, reason: str) -> None:
    """Record the engine's start, if there is a `reason`: the engine has to be restarted after it."""
    if reason and current:
        document["restart"] = {"invocation": service.shown(current.unit).get("InvocationID"), "why": reason}
    verify.note(document)


def _restart(difference: Difference, unit: str, started: tuple[float, float]) -> str:
    """Why the engine needs a restart once `difference` is restored; empty if it does not.

    Args:
        difference: What differs.
        unit: The engine's unit.
        started: When it was started, by the clock and since the boot.
    """
    if difference.kind != "unit" or difference.part != unit:
        return ""
    if difference.aspect == "drop-ins" and not all(_younger(Path(name), *started) for name in difference.names):
        return f"started with {', '.join(difference.names)}"
    return "started before systemd reloaded its unit" if difference.aspect == "daemon-reload" else ""


def _younger(path: Path, clock: float, count: float) -> bool:
    """Whether the file is certainly newer than that start. After a change of the clock nothing is certain."""
    now = time.time()
    if abs((now - time.monotonic()) - (clock - count)) > _STEADY_SECONDS:
        return False
    try:
        return clock + 1 < path.lstat().st_ctime <= now
    except OSError:
        return False


def _steps(part: Part, difference: Difference) -> Iterator[_Step]:
    """The steps to restore `difference`, as text and as a function."""
    place = difference.part
    match difference.kind, difference.aspect:
        case "tree", "mode" | "owner" | "group" | "time of change" if difference.names:
            yield (
                f"{place}: {difference.aspect} of {len(difference.names)} files",
                lambda: _tree_access(part, difference),
            )
        case "file" | "folder" | "tree", "mode" | "user" | "group" | "access list":
            yield f"{place}: {difference.aspect} {difference.expected}", lambda: _access(part)
        case "file", "content" | "type" if _copy(part):
            yield f"{place}: content, as in {part['copy_of']}", lambda: _bring_back(part)
        case "folder" | "tree", "added":
            for name in difference.names:
                yield f"{place}/{name} set aside", lambda name=name: _set_aside(Path(place) / name)  # type: ignore[misc]
        case "absent", _:
            yield f"{place} set aside", lambda: _set_aside(Path(place))
        case "unit", "drop-ins":
            for name in set(difference.names) - set(part.get("drop_ins", [])):
                yield f"{name} set aside", lambda name=name: _set_aside(Path(name))  # type: ignore[misc]
        case "unit", "loaded" if difference.found == "masked":
            yield f"{place} unmasked", lambda: _unmask(place)
        case "unit", "at boot" if difference.expected == "enabled" and part.get("path"):
            yield f"{place} enabled", lambda: service.systemctl("enable", place)
        case "unit", "daemon-reload":
            yield f"{place}: daemon-reload", lambda: None


def _unmask(unit: str) -> None:
    service.systemctl("unmask", unit)
    service.systemctl("unmask", "--runtime", unit)


def _copy(part: Part) -> bool:
    """Whether another file on the host has the content."""
    copy = Path(part.get("copy_of") or "/nonexistent")
    return copy.is_file() and tree.sha256(copy) == part.get("sha256")


def _bring_back(part: Part) -> None:
    path = Path(part["path"])
    if path.is_symlink() or path.is_dir():
        _set_aside(path)
    store.write(path, Path(part["copy_of"]).read_bytes(), int(part["mode"], 8))
    _access(part)


def _access(part: Part) -> None:
    path = part["path"]
    for aspect in ("user", "group"):
        if aspect in part:
            shutil.chown(path, **{aspect: part[aspect]})
    if "mode" in part:
        Path(path).chmod(int(part["mode"], 8))
    if "system.posix_acl_access" in os.listxattr(path):
        os.removexattr(path, "system.posix_acl_access")


def _tree_access(part: Part, difference: Difference) -> None:
    """Restore the mode and owner of a file; its time only if its content is unchanged."""
    folder, recorded = Path(part["path"]), tree.read_record(part)["entries"]
    for name in difference.names:
        kind, mode, user, group, _, time_ns, _ = recorded[name]
        os.chown(folder / name, user, group, follow_symlinks=False)
        if kind != "l":
            (folder / name).chmod(mode)
        if difference.aspect == "time of change":
            os.utime(folder / name, ns=(time_ns, time_ns))


def _set_aside(path: Path) -> None:
    """Move `path` aside, under its own path, where no program reads it."""
    if not path.is_symlink() and not path.exists():
        return  # an added directory was moved with its files
    place = SET_ASIDE / time.strftime("%Y%m%d-%H%M%S") / str(path).lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    SET_ASIDE.chmod(0o700)
    shutil.move(path, place)
