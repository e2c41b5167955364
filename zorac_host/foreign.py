"""A unit with an engine's name that zorac-deploy did not create: detect, back up and restore it."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from zorac_host.refusal import Refusal
from zorac_host.store import ETC, STATE, UNITS, read_json, write_json

STORE = STATE / "replaced"
CACHE = Path("/var/cache")  # our unit has a cache directory with the unit's name, which systemd would give to our user
# systemd's load path: the first directory with a unit wins. The value is whether its files can be moved: packages own
# those under /usr, and generators recreate theirs.
LOAD_PATH = {
    Path("/etc/systemd/system.control"): True,
    Path("/run/systemd/system.control"): True,
    Path("/run/systemd/transient"): True,
    Path("/run/systemd/generator.early"): False,
    UNITS: True,
    Path("/etc/systemd/system.attached"): True,
    Path("/run/systemd/system"): True,
    Path("/run/systemd/system.attached"): True,
    Path("/run/systemd/generator"): False,
    Path("/usr/local/lib/systemd/system"): False,
    Path("/usr/lib/systemd/system"): False,
    Path("/run/systemd/generator.late"): False,
}
_MARK = "ZORAC_DEPLOY_GENERATION="
_ADDED = (".d", ".wants", ".requires")
_RUNNING = ("active", "activating", "reloading")
_TAR = ("tar", "--absolute-names", "--numeric-owner", "--xattrs", "--acls")


def look(unit: str) -> list[Path]:
    """The files that define `unit` and are neither ours nor backed up, and its drop-ins in ``UNIT.d``.

    Drop-ins of a deployed unit were added later, and are ignored.
    """
    fragments = [folder / unit for folder in LOAD_PATH if os.path.lexists(folder / unit)]
    if fragments and _is_ours(fragments[0]):
        return []
    added = [] if _is_deployed(unit) else [path for folder in _added(unit) for path in sorted(folder.iterdir())]
    stored = {Path(path) for path in _state(unit).get("stored", ())}
    return [path for path in (*fragments, *added) if path not in stored]


def refusal(unit: str, paths: list[Path]) -> Refusal:
    """Why `unit`, defined by `paths`, is not replaced, and what to do."""
    earlier = STORE / unit
    cure = (
        f"An earlier one is already stored in {earlier}. Move this one away by hand."
        if earlier.is_dir()
        else f"Move it away, or replace it with: zorac-deploy up --replace-unit. That stores it in {earlier}, and "
        "zorac-deploy down restores it."
    )
    state = ", which is running" if _is_running(unit) else ""
    message = f"zorac-deploy did not create {unit}{state}: {', '.join(map(str, paths))}. {cure}"
    return Refusal(message, "unit-foreign")


def require_none(unit: str) -> None:
    """Require that `unit` may be written.

    Raises:
        Refusal: It is not ours, and no backup exists.
    """
    if paths := look(unit):
        raise refusal(unit, paths)


def keep(unit: str) -> bool:
    """Back up the files that define `unit`, and its state. Return whether there were any.

    Raises:
        Refusal: A backup of an earlier one exists.
    """
    paths = look(unit)
    if not paths:
        return False
    target, scratch = STORE / unit, STORE / f"{unit}.partial"
    if target.is_dir():
        raise refusal(unit, paths)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    STORE.chmod(0o700)
    files = [folder / unit for folder in LOAD_PATH if os.path.lexists(folder / unit)]
    moved = [path for path in (*files, *_added(unit)) if LOAD_PATH[path.parent]] + _links(unit)
    # What cannot be moved is masked in systemd's way. A unit file need not be: ours has precedence.
    kept = [path for folder in _added(unit) if not LOAD_PATH[folder.parent] for path in sorted(folder.iterdir())]
    masks = list(dict.fromkeys(UNITS / path.parent.name / path.name for path in kept))
    _run(*_TAR, "--create", f"--file={scratch / 'files.tar'}", "--files-from=/dev/null", *map(str, moved))
    state = {
        "running": _is_running(unit),
        "removed": False,
        "boot": _boot(),
        "moved": list(map(str, moved)),
        "masks": list(map(str, masks)),
        "stored": [str(path) for path in paths],
    }
    write_json(scratch / "state.json", state)
    scratch.rename(target)
    _run("sync", "--file-system", str(STORE))
    return True


def remove(unit: str) -> None:
    """Remove the backed-up unit, which is stopped, once. What appears later is not ours."""
    state = _state(unit)
    if state.get("removed", True):
        return
    for path in map(Path, state["moved"]):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    cache, aside = _caches(unit)
    if cache.is_dir() and not aside.exists():
        cache.rename(aside)
    for mask in map(Path, state["masks"]):
        mask.parent.mkdir(exist_ok=True)
        if not mask.is_symlink():
            mask.symlink_to("/dev/null")
    fixed = [path for path in state["stored"] if not LOAD_PATH.get(_folder(Path(path)), True)]
    write_json(STORE / unit / "state.json", state | {"removed": True, "stored": [*fixed, *state["masks"]]})


def restore(unit: str) -> bool:
    """Restore the backup of `unit`, and start it if it was running. Return whether a backup existed."""
    state = _state(unit)
    if not state:
        return False
    for mask in map(Path, state["masks"]):
        if mask.is_symlink() and mask.readlink() == Path("/dev/null"):
            mask.unlink()
            if not any(mask.parent.iterdir()):
                mask.parent.rmdir()
    cache, aside = _caches(unit)
    if aside.is_dir():
        shutil.rmtree(cache, ignore_errors=True)
        aside.rename(cache)
    # files in /run do not survive a reboot anyway
    rest = [] if state["boot"] == _boot() else ["--exclude=/run/*"]
    archive = f"--file={STORE / unit / 'files.tar'}"
    _run(*_TAR, "--extract", archive, "--skip-old-files", "--same-owner", "--preserve-permissions", *rest)
    subprocess.run(["systemctl", "daemon-reload"], capture_output=True, check=False)
    if state["running"]:
        subprocess.run(["systemctl", "start", "--no-block", unit], capture_output=True, check=False)
    shutil.rmtree(STORE / unit)
    for folder in (STORE, STORE.parent):
        if not any(folder.iterdir()):
            folder.rmdir()
    return True


def stored() -> list[str]:
    """The units with a backup."""
    return sorted(path.parent.name for path in STORE.glob("*/state.json") if path.parent.suffix != ".partial")


def _is_ours(fragment: Path) -> bool:
    try:
        return _MARK in fragment.read_text(errors="replace")
    except OSError:
        return False


def _is_deployed(unit: str) -> bool:
    return read_json(ETC / "current" / "generation.json").get("unit") == unit


def _added(unit: str) -> list[Path]:
    """The directories with drop-ins for `unit`, such as ``UNIT.d``."""
    folders = [folder / f"{unit}{kind}" for folder in LOAD_PATH for kind in _ADDED]
    return [folder for folder in folders if folder.is_dir()]


def _links(unit: str) -> list[Path]:
    """The links that start `unit` at boot, and its aliases."""
    links = [path for folder, movable in LOAD_PATH.items() if movable for path in folder.glob(f"*.[wr]*s/{unit}")]
    names = [path for path in UNITS.glob("*.service") if path.is_symlink() and path.name != unit]
    return sorted(links) + sorted(path for path in names if path.readlink().name == unit)


def _caches(unit: str) -> tuple[Path, Path]:
    """The unit's cache, and the place for a replaced unit's cache."""
    name = unit.removesuffix(".service")
    return CACHE / name, CACHE / f"{name}.replaced"


def _folder(path: Path) -> Path:
    """The directory of the load path that `path` is in."""
    return next((folder for folder in path.parents if folder in LOAD_PATH), path.parent)


def _is_running(unit: str) -> bool:
    command = ["systemctl", "show", "--property=ActiveState", "--value", unit]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() in _RUNNING


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _state(unit: str) -> dict[str, Any]:
    return read_json(STORE / unit / "state.json")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command[:1])}: {done.stderr.strip()[-500:]}")
