"""Record the files of a directory, an engine or a model, when it is installed, and find what differs later.

The record has every file with its mode, owner, size, time and SHA-256. Comparing all but the SHA-256 reads no file;
``deep`` reads them all.
"""

import base64
import csv
import gzip
import hashlib
import itertools
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from zorac_host import store

# Path relative to the directory -> kind, mode, user id, group id, size, time of change in ns, link's target.
Entries: TypeAlias = dict[str, list[Any]]
_ASPECTS = ("type", "mode", "owner", "group", "size", "time of change", "target")
# Instead of a package: all of them. A file that is in no library and of no package is named, after ./.
EVERY = "*"
_DESCRIBED = ("record_sha256", "fingerprint", "files", "bytes")
_SMALL_BYTES = 64 * 2**10
_BATCH = 256  # files that a thread reads in one go
_WHEELS = "lib/python3*/site-packages/*.dist-info/RECORD"


@dataclass(frozen=True)
class Change:
    """A difference in one file of a directory.

    Attributes:
        name: The file, relative to the directory.
        aspect: The property that differs: ``missing``, ``added``, ``mode``, ``content``, …
        expected: The recorded value.
        found: The current value.
    """

    name: str
    aspect: str
    expected: str
    found: str


def entries(folder: Path) -> Entries:
    """Every file, link and directory below `folder`, with the result of lstat."""
    by_name: Entries = {}
    waiting = [(str(folder), "")]
    while waiting:
        path, prefix = waiting.pop()
        with os.scandir(path) as listing:
            for entry in listing:
                status = entry.stat(follow_symlinks=False)
                name = f"{prefix}{entry.name}"
                mode = status.st_mode
                if stat.S_ISDIR(mode):
                    # its size and time follow from its files
                    by_name[name] = ["d", stat.S_IMODE(mode), status.st_uid, status.st_gid, 0, 0, ""]
                    waiting.append((entry.path, f"{name}/"))
                elif stat.S_ISLNK(mode):
                    by_name[name] = ["l", 0, status.st_uid, status.st_gid, 0, 0, str(Path(entry.path).readlink())]
                else:
                    kind = "f" if stat.S_ISREG(mode) else "other"
                    by_name[name] = [
                        kind, stat.S_IMODE(mode), status.st_uid, status.st_gid, status.st_size, status.st_mtime_ns, ""
                    ]  # fmt: skip
    return by_name


def fingerprint(by_name: Mapping[str, list[Any]]) -> str:
    """The digest of a directory's state without its content."""
    lines = "\n".join(f"{name}\0{by_name[name]}" for name in sorted(by_name))
    return hashlib.sha256(lines.encode("utf-8", "surrogatepass")).hexdigest()


def describe(
    folder: Path, record: Path, create: bool, renewed: bool = False, before: Mapping[str, Any] = {}
) -> dict[str, Any]:
    """The part for `folder` in a desired state: its record's digest and derived values.

    An existing record stays unless the directory was reinstalled: differences from it are differences.

    Args:
        folder: The directory.
        record: The file with the record.
        create: Whether a missing record may be created.
        renewed: Whether the directory was reinstalled, so that its record is rebuilt.
        before: The same part of the previous document; empty for none. It saves reading an unchanged record.

    Returns:
        None if there is no record.
    """
    if renewed or not record.is_file():
        if not create or not folder.is_dir():
            return {}
        _write_record(folder, record)
    packed = record.read_bytes()
    digest = hashlib.sha256(packed).hexdigest()
    if before.get("record_sha256") == digest:
        return {name: before[name] for name in _DESCRIBED}
    recorded = _unpacked(packed)["entries"]
    regular = [entry for entry in recorded.values() if entry[0] == "f"]
    return {
        "record_sha256": digest,
        "fingerprint": fingerprint(recorded),
        "files": len(regular),
        "bytes": sum(entry[4] for entry in regular),
    }


def _write_record(folder: Path, record: Path) -> None:
    current = entries(folder)
    known = _listed_by_wheels(folder) | _listed_by_manifest(folder)
    names = [name for name, entry in current.items() if entry[0] == "f"]
    digests = known | _digests(folder, (name for name in names if name not in known))
    text = json.dumps({"entries": current, "sha256": {name: digests[name] for name in names}})
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    store.write(record, gzip.compress(text.encode("utf-8", "surrogatepass"), compresslevel=1, mtime=0), 0o600)


def _unpacked(packed: bytes) -> dict[str, Any]:
    return dict(json.loads(gzip.decompress(packed)))


def _listed_by_manifest(folder: Path) -> dict[str, str]:
    """The SHA-256 of the files of a model, from its manifest."""
    files = store.read_json(folder / ".zorac-deploy.json").get("files", {})
    return {name: file["sha256"] for name, file in files.items()}


def _listed_by_wheels(folder: Path) -> dict[str, str]:
    """The SHA-256 of files in a virtual environment, from its wheels, so that they need not be read."""
    known = {}
    for record in folder.glob(_WHEELS):
        site = record.parent.parent.relative_to(folder)
        for name, digest in _lines(record):
            # byte code of a wheel is compiled again at its installation
            if digest.startswith("sha256=") and not name.endswith(".pyc"):
                padded = digest.removeprefix("sha256=") + "="
                known[os.path.normpath(site / name)] = base64.urlsafe_b64decode(padded).hex()
    return known


def _lines(record: Path) -> Iterator[tuple[str, str]]:
    """The files that a wheel lists, with their digests."""
    with record.open(newline="", errors="replace") as file:
        for row in csv.reader(file):
            if len(row) == 3:
                yield row[0], row[1]


def changes(folder: Path, part: Mapping[str, Any], deep: bool) -> Iterator[Change]:
    """The differences of `folder` from the record that `part` names.

    Args:
        folder: The directory.
        part: The part, from `describe`.
        deep: Also read every file and compare its SHA-256.
    """
    current = entries(folder)
    same = fingerprint(current) == part["fingerprint"]
    if same and not deep:
        return
    try:
        recorded = read_record(part)
    except (OSError, ValueError) as error:
        yield Change("", "record", "as it was written", f"{part['record']}: {error}")
        return
    if not same:
        yield from _compared(folder, recorded, current)
    if deep:
        yield from _read_again(folder, recorded, current)


def read_record(part: Mapping[str, Any]) -> dict[str, Any]:
    """The record that `part` names.

    Raises:
        OSError: It cannot be read.
        ValueError: Its digest differs.
    """
    packed = Path(part["record"]).read_bytes()
    if hashlib.sha256(packed).hexdigest() != part["record_sha256"]:
        raise ValueError("it was changed")
    return _unpacked(packed)


def _compared(folder: Path, recorded: Mapping[str, Any], current: Entries) -> Iterator[Change]:
    expected_entries = recorded["entries"]
    for name in sorted(expected_entries.keys() - current.keys()):
        yield Change(name, "missing", "a file", "nothing")
    for name in sorted(current.keys() - expected_entries.keys()):
        yield Change(name, "added", "nothing", "a file")
    for name in sorted(expected_entries.keys() & current.keys()):
        differs = {
            aspect: (expected, actual)
            for aspect, expected, actual in zip(_ASPECTS, expected_entries[name], current[name], strict=True)
            if expected != actual
        }
        if "time of change" in differs and not differs.keys() & {"type", "size"}:
            digest = sha256(folder / name)
            if digest != recorded["sha256"][name]:
                differs["content"] = (recorded["sha256"][name][:12], digest[:12])
        if differs.keys() & {"content", "type", "size"}:
            differs.pop("time of change", None)
        for aspect, (expected, actual) in differs.items():
            shown = (lambda value: f"{value:04o}") if aspect == "mode" else str
            yield Change(name, aspect, shown(expected), shown(actual))


def _read_again(folder: Path, recorded: Mapping[str, Any], current: Entries) -> Iterator[Change]:
    names = [name for name in recorded["sha256"] if current.get(name, [""])[0] == "f"]
    digests = _digests(folder, names)
    for name in sorted(names):
        if digests[name] != recorded["sha256"][name]:
            yield Change(name, "content", recorded["sha256"][name][:12], digests[name][:12])


def _digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    listed = list(names)
    batches = [listed[start : start + _BATCH] for start in range(0, len(listed), _BATCH)]
    with ThreadPoolExecutor() as pool:
        digests = pool.map(lambda batch: [sha256(folder / name) for name in batch], batches)
    return dict(zip(listed, itertools.chain.from_iterable(digests), strict=True))


def sha256(path: Path) -> str:
    """The SHA-256 of the file's content."""
    with path.open("rb") as file:
        # An engine has tens of thousands of small files: for each, file_digest would allocate 256 KiB.
        start = file.read(_SMALL_BYTES)
        if len(start) < _SMALL_BYTES:
            return hashlib.sha256(start).hexdigest()
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def packages(folder: Path, names: Iterable[str]) -> list[str]:
    """The Python packages in the environment `folder` that installed `names`, files and directories.

    A name of no package is the environment's own: ``./pyvenv.cfg``. If it is in a library, its package is gone or
    unknown: `EVERY`.
    """
    unowned, owners = {_source(name) for name in names}, set()
    for record in folder.glob(_WHEELS):
        site, dist_info = record.parent.parent.relative_to(folder), f"{record.parent.relative_to(folder)}/"
        listed = {os.path.normpath(site / name) for name, _ in _lines(record)}
        folders = {Path(name.rpartition("/")[0]) for name in listed}
        listed |= {str(path) for leaf in folders for path in (leaf, *leaf.parents)}
        packaged = (unowned & listed) | {name for name in unowned if name.startswith(dist_info)}
        if packaged:
            owners.add(record.parent.name.removesuffix(".dist-info").rpartition("-")[0].lower().replace("_", "-"))
            unowned -= packaged
    return sorted(owners | {EVERY if name.startswith("lib/") else f"./{name}" for name in unowned})


def _source(name: str) -> str:
    """The source of byte code, the directory of a directory for it; any other file itself."""
    folder, _, file = f"{name}/".rpartition("__pycache__/")
    if not folder:
        return name
    return f"{folder}{file.partition('.')[0]}.py" if file.endswith(".pyc/") else folder.rstrip("/")
