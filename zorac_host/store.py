"""The files of the host program: generations, the link to the current one, results, and the activation in progress.

A generation is a directory that never changes. Its results are stored elsewhere, because they do change. Every file is
written under another name, forced to the disk, and renamed: after a power cut there is the old or the new one.
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
    """A generation.

    Attributes:
        number: Its number, never reused.
        manifest: What it serves, and its versions: ``generation.json``.
    """

    number: int
    manifest: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """The directory of its files."""
        return ETC / "generations" / str(self.number)

    @property
    def unit(self) -> str:
        """The systemd unit that runs its engine."""
        return str(self.manifest["unit"])

    @property
    def journal(self) -> Path:
        """The engine's log of its last failed start."""
        return STATE / "generations" / f"{self.number}.journal"


def generations() -> list[Generation]:
    """All generations, the oldest first."""
    folders = [path for path in (ETC / "generations").glob("*") if path.name.isdecimal()]
    numbers = sorted(int(path.name) for path in folders)
    return [existing for number in numbers if (existing := generation(number))]


def generation(number: int) -> Generation | None:
    """The generation `number`; None if it does not exist."""
    manifest = read_json(ETC / "generations" / str(number) / "generation.json")
    return Generation(number, manifest) if manifest else None


def current() -> Generation | None:
    """The target of the link to the current generation."""
    try:
        return generation(int(CURRENT.readlink().name))
    except (OSError, ValueError):
        return None


def units() -> set[str]:
    """The systemd units of all generations: one per kind of engine."""
    return {generation.unit for generation in generations()}


def key() -> str:
    """The current API key.

    Raises:
        ValueError: A client cannot send it. The message does not quote it.
        OSError: It cannot be read.
    """
    content = KEY_FILE.read_bytes().strip()
    if not content or not all(0x21 <= byte <= 0x7E for byte in content):
        raise ValueError(f"the key in {KEY_FILE} is empty, or has other characters than printable ASCII")
    return content.decode()


class Flip:
    """The change of the link and the unit, prepared while the old engine still serves.

    What may fail for lack of space is done here; only renames are left for `apply`.
    """

    def __init__(self, target: Generation) -> None:
        self._target = target
        self._link, self._unit = ETC / f"{_PREPARED}{target.number}", UNITS / f"{_PREPARED}{target.number}"
        if not self._link.is_symlink():
            self._link.symlink_to(Path("generations") / str(target.number))
        text = (target.folder / target.unit).read_text()
        if not self._unit.is_file() or self._unit.read_text() != text:
            write(self._unit, text, 0o644)

    def apply(self, units: Iterable[str] = ()) -> None:
        """Make the target the current generation, and its unit the only one of `units` that exists."""
        self._unit.rename(UNITS / self._target.unit)
        for other in set(units) - {self._target.unit}:
            (UNITS / other).unlink(missing_ok=True)
        self._link.rename(CURRENT)
        _sync(UNITS)
        _sync(ETC)


class KeyChange:
    """A change of the API key, as part of an activation.

    Its files show the progress after an interruption: first the new key is stored under its own name, then the old one
    under another, then the new one is renamed into place.
    """

    def __init__(self) -> None:
        self._new, self._old = (KEY_FILE.with_name(f".api-key.{suffix}") for suffix in ("new", "old"))

    def take(self, staged: Path) -> None:
        """Make the file `staged` the new key."""
        staged.chmod(0o600)
        staged.rename(self._new)
        _sync(ETC)

    def is_ahead(self) -> bool:
        """Whether the change is still to do."""
        return self._new.exists()

    def is_made(self) -> bool:
        """Whether the key was changed, and the old one is stored."""
        return self._old.exists() and not self._new.exists()

    def prepare(self) -> None:
        """Store the current key for a rollback."""
        if self.is_ahead() and KEY_FILE.exists():
            write(self._old, KEY_FILE.read_text(), 0o600)

    def make(self) -> None:
        """Rename the new key into place, if that is still to do."""
        if self.is_ahead():
            self._new.rename(KEY_FILE)
            _sync(ETC)

    def undo(self) -> None:
        """Restore the old key, if it was changed."""
        if self.is_made():
            self._old.rename(KEY_FILE)
            _sync(ETC)

    def forget(self) -> None:
        """Remove every key except the current one."""
        self._old.unlink(missing_ok=True)
        self._new.unlink(missing_ok=True)


def tidy() -> None:
    """Remove what was prepared and not used."""
    for folder in (ETC, UNITS):
        for path in folder.glob(f"{_PREPARED}*"):
            path.unlink()


def forget_current(unit: str) -> None:
    """Have no current generation, as before the first activation."""
    for path in (CURRENT, UNITS / unit):
        path.unlink(missing_ok=True)


def outcome(number: int) -> dict[str, Any]:
    """The result of the generation `number`; empty if it was never activated."""
    return read_json(STATE / "generations" / f"{number}.json")


def set_outcome(number: int, result: Mapping[str, Any]) -> None:
    """Store the result of the generation `number`, and its place as the last activation."""
    order = 1 + max((outcome(generation.number).get("order", 0) for generation in generations()), default=0)
    write_json(STATE / "generations" / f"{number}.json", {**result, "order": order})


def add_to_outcome(number: int, values: Mapping[str, Any]) -> None:
    """Add to the result of the generation `number` without changing its place among the activations."""
    write_json(STATE / "generations" / f"{number}.json", {**outcome(number), **values})


def last_good(besides: int) -> Generation | None:
    """The generation that was verified last, except `besides`."""
    proved = [generation for generation in generations() if generation.number != besides and _proved(generation)]
    return max(proved, key=lambda generation: int(outcome(generation.number)["order"]), default=None)


def _proved(generation: Generation) -> bool:
    return outcome(generation.number).get("state") == "proved"


def pending() -> dict[str, Any]:
    """The activation in progress; empty for none."""
    return read_json(_PENDING)


def set_pending(record: Mapping[str, Any]) -> None:
    """Record the start or the progress of an activation."""
    write_json(_PENDING, record)


def end_pending() -> None:
    """End the activation, and reset the watchdog's counts."""
    _PENDING.unlink(missing_ok=True)
    _sync(STATE)


def watch() -> dict[str, Any]:
    """The watchdog's stored state."""
    return read_json(_WATCH)


def set_watch(state: Mapping[str, Any]) -> None:
    """Store the watchdog's state."""
    write_json(_WATCH, state)


def collect(keep: int, check: bool = False) -> dict[str, Any]:
    """Remove all generations except the current one, the `keep` that were verified last, and the newest.

    Engines and models that only removed generations use are removed with them.

    Args:
        keep: How many verified generations stay, beside the current one.
        check: Only return what would be removed.

    Returns:
        The numbers, the paths and the bytes removed.
    """
    everything, running = generations(), current()
    good = {
        generation.number: int(outcome(generation.number)["order"]) for generation in everything if _proved(generation)
    }
    if running:
        good.pop(running.number, None)
    # The newest stays even if it failed: the next number follows from it.
    kept = {
        *sorted(good, key=lambda number: -good[number])[:keep],
        *[generation.number for generation in everything[-1:]],
    }
    kept |= {running.number} if running else set()
    removed = [generation for generation in everything if generation.number not in kept]
    needed = {path for generation in everything if generation.number in kept for path in generation.manifest["disk"]}
    paths = sorted({path for generation in removed for path in generation.manifest["disk"]} - needed)
    paths += sorted({path for generation in removed for path in generation.manifest["scratch"]}) if paths else []
    freed = _freed(map(Path, paths))
    if not check:
        for path in paths:
            if Path(path).is_dir():
                shutil.rmtree(path)
            else:
                Path(path).unlink(missing_ok=True)
        # last: after an interruption, the generations still name the rest
        for generation in removed:
            shutil.rmtree(generation.folder)
            for rest in (generation.journal, generation.journal.with_suffix(".json")):
                rest.unlink(missing_ok=True)
    return {"generations": [generation.number for generation in removed], "paths": paths, "bytes": freed}


def _freed(paths: Iterable[Path]) -> int:
    """The bytes freed by removing `paths`: a file counts if all of its links go."""
    names: Counter[tuple[int, int]] = Counter()
    files: dict[tuple[int, int], os.stat_result] = {}
    for path in paths:
        for file in (path, *path.rglob("*")) if path.exists() else ():
            if file.is_file() and not file.is_symlink():
                status = file.stat()
                files[status.st_dev, status.st_ino] = status
                names[status.st_dev, status.st_ino] += 1
    return sum(status.st_blocks * 512 for key, status in files.items() if status.st_nlink == names[key])


def read_json(path: Path) -> dict[str, Any]:
    """The object in the file; empty if it is missing or unreadable."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` to the file as JSON, atomically."""
    write(path, json.dumps(content, indent=2) + "\n", 0o644)


def write(path: Path, content: str | bytes, mode: int) -> None:
    """Write `content` to the file, completely or not at all."""
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
