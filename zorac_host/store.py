"""What is on the disk: generations, the link to the current one, what became of each, and the activation under way.

A generation is a folder that never changes. What became of it is kept elsewhere, for that does change. Every file is
written whole under another name, forced to the disk, and renamed: a power cut leaves the old one or the new one.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ETC = Path(os.environ.get("ZORAC_HOST_ETC", "/etc/zorac-deploy"))
STATE = Path(os.environ.get("ZORAC_HOST_STATE", "/var/lib/zorac-deploy"))
UNITS = Path(os.environ.get("ZORAC_HOST_UNITS", "/etc/systemd/system"))
CURRENT = ETC / "current"
KEY_FILE = ETC / "api-key"

_PREPARED = ".generation-"
_PENDING = STATE / "activation.json"
_WATCH = STATE / "watchdog.json"


@dataclass(frozen=True)
class Generation:
    """One generation.

    Attributes:
        number: Its number, never given twice.
        about: What it serves and with what: ``generation.json``.
    """

    number: int
    about: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return ETC / "generations" / str(self.number)

    @property
    def unit(self) -> str:
        """The systemd unit that runs its engine."""
        return str(self.about["unit"])

    @property
    def journal(self) -> Path:
        """What the engine said when it last failed to start."""
        return STATE / "generations" / f"{self.number}.journal"


def generations() -> list[Generation]:
    """All generations, the oldest first."""
    folders = [path for path in (ETC / "generations").glob("*") if path.name.isdecimal()]
    numbers = sorted(int(path.name) for path in folders)
    return [found for number in numbers if (found := generation(number))]


def generation(number: int) -> Generation | None:
    """The generation `number`, if there is one."""
    about = read_json(ETC / "generations" / str(number) / "generation.json")
    return Generation(number, about) if about else None


def current() -> Generation | None:
    """The generation that the link leads to."""
    try:
        return generation(int(CURRENT.readlink().name))
    except (OSError, ValueError):
        return None


def units() -> set[str]:
    """The systemd units of all generations: one for each kind of engine."""
    return {each.unit for each in generations()}


def key() -> str:
    """The API key that is in force.

    Raises:
        ValueError: A client cannot send it. The message does not contain it.
        OSError: It cannot be read.
    """
    found = KEY_FILE.read_bytes().strip()
    if not found or not all(0x21 <= byte <= 0x7E for byte in found):
        raise ValueError(f"the key in {KEY_FILE} is empty, or has other characters than printable ASCII")
    return found.decode()


class Flip:
    """The change of the link and the unit, prepared while the old engine still serves.

    What may fail for want of space is done here; what is left for `now` are renames.
    """

    def __init__(self, target: Generation) -> None:
        self._target = target
        self._link, self._unit = ETC / f"{_PREPARED}{target.number}", UNITS / f"{_PREPARED}{target.number}"
        if not self._link.is_symlink():
            self._link.symlink_to(Path("generations") / str(target.number))
        text = (target.folder / target.unit).read_text()
        if not self._unit.is_file() or self._unit.read_text() != text:
            write(self._unit, text, 0o644)

    def now(self, units: Iterable[str] = ()) -> None:
        """Let the target be the current generation, with its unit the only one of `units` that there is."""
        self._unit.rename(UNITS / self._target.unit)
        for other in set(units) - {self._target.unit}:
            (UNITS / other).unlink(missing_ok=True)
        self._link.rename(CURRENT)
        _sync(UNITS)
        _sync(ETC)


class KeyChange:
    """A change of the API key, which is part of the activation under way.

    Its files say how far it is, wherever it is cut off: first the new key has a name of its own, then the old one is
    kept under another, then the new one is renamed into force.
    """

    def __init__(self) -> None:
        self._new, self._old = (KEY_FILE.with_name(f".api-key.{each}") for each in ("new", "old"))

    def take(self, staged: Path) -> None:
        """Have the key in the file `staged` be the new one."""
        staged.chmod(0o600)
        staged.rename(self._new)
        _sync(ETC)

    def is_ahead(self) -> bool:
        """Whether the key has to be changed yet."""
        return self._new.exists()

    def is_made(self) -> bool:
        """Whether the key was changed, and the one of before is known."""
        return self._old.exists() and not self._new.exists()

    def prepare(self) -> None:
        """Keep the key in force, for the way back."""
        if self.is_ahead() and KEY_FILE.exists():
            write(self._old, KEY_FILE.read_text(), 0o600)

    def make(self) -> None:
        """Put the new key in force, if that is ahead."""
        if self.is_ahead():
            self._new.rename(KEY_FILE)
            _sync(ETC)

    def undo(self) -> None:
        """Put the key of before in force again, if it was changed."""
        if self.is_made():
            self._old.rename(KEY_FILE)
            _sync(ETC)

    def forget(self) -> None:
        """Keep no other key than the one in force."""
        self._old.unlink(missing_ok=True)
        self._new.unlink(missing_ok=True)


def tidy() -> None:
    """Remove what was prepared and not used."""
    for folder in (ETC, UNITS):
        for path in folder.glob(f"{_PREPARED}*"):
            path.unlink()


def forget_current(unit: str) -> None:
    """Have no current generation, as before the first one."""
    for path in (CURRENT, UNITS / unit):
        path.unlink(missing_ok=True)


def outcome(number: int) -> dict[str, Any]:
    """What became of the generation `number`; empty if it was never activated."""
    return read_json(STATE / "generations" / f"{number}.json")


def set_outcome(number: int, what: Mapping[str, Any]) -> None:
    """Keep what became of the generation `number`, and that it was the last of all to be activated."""
    order = 1 + max((outcome(each.number).get("order", 0) for each in generations()), default=0)
    write_json(STATE / "generations" / f"{number}.json", {**what, "order": order})


def add_to_outcome(number: int, what: Mapping[str, Any]) -> None:
    """Keep more of what became of the generation `number`, without having it be the last to be activated."""
    write_json(STATE / "generations" / f"{number}.json", {**outcome(number), **what})


def last_good(besides: int) -> Generation | None:
    """The generation that was last proved, other than `besides`."""
    proved = [each for each in generations() if each.number != besides and _proved(each)]
    return max(proved, key=lambda each: int(outcome(each.number)["order"]), default=None)


def _proved(each: Generation) -> bool:
    return outcome(each.number).get("state") == "proved"


def pending() -> dict[str, Any]:
    """The activation under way; empty if there is none."""
    return read_json(_PENDING)


def set_pending(what: Mapping[str, Any]) -> None:
    """Begin an activation, or keep how far it is."""
    write_json(_PENDING, what)


def end_pending() -> None:
    """End the activation. What the watchdog counted belongs to what was before."""
    _PENDING.unlink(missing_ok=True)
    _sync(STATE)


def watch() -> dict[str, Any]:
    """What the watchdog keeps between two looks."""
    return read_json(_WATCH)


def set_watch(what: Mapping[str, Any]) -> None:
    """Keep what the watchdog has counted."""
    write_json(_WATCH, what)


def collect(keep: int, check: bool = False) -> dict[str, Any]:
    """Remove all generations but the current one, the `keep` that were proved last, and the newest.

    What only removed generations need goes with them: engines and models are shared between generations.

    Args:
        keep: How many proved generations are kept, beside the current one.
        check: Only say what would be removed.

    Returns:
        The numbers, the paths and the bytes that were removed.
    """
    everything, running = generations(), current()
    good = {each.number: int(outcome(each.number)["order"]) for each in everything if _proved(each)}
    if running:
        good.pop(running.number, None)
    # The newest keeps its place even if it failed: numbers are given by counting on from it.
    kept = {*sorted(good, key=lambda number: -good[number])[:keep], *[each.number for each in everything[-1:]]}
    kept |= {running.number} if running else set()
    removed = [each for each in everything if each.number not in kept]
    needed = {path for each in everything if each.number in kept for path in each.about["disk"]}
    paths = sorted({path for each in removed for path in each.about["disk"]} - needed)
    paths += sorted({path for each in removed for path in each.about["scratch"]}) if paths else []
    freed = _freed(map(Path, paths))
    if not check:
        for path in paths:
            if Path(path).is_dir():
                shutil.rmtree(path)
            else:
                Path(path).unlink(missing_ok=True)
        # Last, so that what was cut off is found again by the generations that name it.
        for each in removed:
            shutil.rmtree(each.folder)
            for rest in (each.journal, each.journal.with_suffix(".json")):
                rest.unlink(missing_ok=True)
    return {"generations": [each.number for each in removed], "paths": paths, "bytes": freed}


def _freed(paths: Iterable[Path]) -> int:
    """What removing `paths` frees, in bytes: a file counts when all of its names go."""
    names: Counter[tuple[int, int]] = Counter()
    files: dict[tuple[int, int], os.stat_result] = {}
    for path in paths:
        for each in (path, *path.rglob("*")) if path.exists() else ():
            if each.is_file() and not each.is_symlink():
                found = each.stat()
                files[found.st_dev, found.st_ino] = found
                names[found.st_dev, found.st_ino] += 1
    return sum(found.st_blocks * 512 for key, found in files.items() if found.st_nlink == names[key])


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; empty if there is no such file, or none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_json(path: Path, what: Mapping[str, Any]) -> None:
    """Have `what` in the file, whole."""
    write(path, json.dumps(what, indent=2) + "\n", 0o644)


def write(path: Path, content: str | bytes, mode: int) -> None:
    """Have `content` in the file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.partial")
    scratch.unlink(missing_ok=True)
    try:
        with open(scratch, "xb", opener=_for_root) as file:
            file.write(content if isinstance(content, bytes) else content.encode())
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        scratch.rename(path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
    _sync(path.parent)


def _for_root(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
