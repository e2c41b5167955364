"""List, verify and remove the models of a host. Each command prints one line of JSON.

It needs only Python. Usage: ``model_store.py ROOT list
verify [NAME]
remove NAME [--force]
clean``. A refusal is one
line too, with exit code 4.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_RECORD = ".zorac-deploy.json"
_GENERATIONS = Path(os.environ.get("ZORAC_HOST_ETC", "/etc/zorac-deploy")) / "generations"
# The directory names that the role uses; the parent may have others.
_OURS = re.compile(r"(?P<name>.+)-(?P<digest>[0-9a-f]{12})(?P<partial>\.partial)?", re.DOTALL)


class Fault(Exception):
    """The command cannot be done; the message says what to do instead. The second argument is the refusal's id."""


def listed(root: Path) -> list[dict[str, Any]]:
    """All models in `root`, including partial ones, by name."""
    needed = _needed()
    return [_described(folder, needed) for folder in _folders(root)]


def verify(root: Path, name: str) -> list[dict[str, Any]]:
    """Compare every file of the models called `name`, by default of all, with its SHA-256."""
    folders = [folder for folder in _chosen(root, name) if not _is_partial(folder)]
    return [{"folder": folder.name, **_verified(folder)} for folder in folders]


def remove(root: Path, name: str, force: bool) -> dict[str, Any]:
    """Remove the models called `name`.

    Raises:
        Fault: A generation uses one of them, or none exists.
    """
    chosen, needed = _chosen(root, name), _needed()
    used = {folder.name: needed[str(folder)] for folder in chosen if str(folder) in needed}
    if used and not force:
        which = "; ".join(f"{folder}: generation {', '.join(map(str, numbers))}" for folder, numbers in used.items())
        raise Fault(
            f"a generation of this host uses the model ({which}). Remove old generations with: "
            "zorac-deploy generations --collect. To remove the model nevertheless, add --force.",
            "model-in-use",
        )
    return _removed(chosen)


def clean(root: Path) -> dict[str, Any]:
    """Remove partial downloads and copies, and end those in progress."""
    return _removed([folder for folder in _folders(root) if _is_partial(folder)])


def _folders(root: Path) -> list[Path]:
    paths = root.iterdir() if root.is_dir() else ()
    return sorted(path for path in paths if path.is_dir() and not path.is_symlink() and _OURS.fullmatch(path.name))


def _chosen(root: Path, name: str) -> list[Path]:
    """The directories of the models called `name`, with or without the revision; by default all."""
    matches = [folder for folder in _folders(root) if not name or name in (folder.name, _parts(folder)["name"])]
    if name and not matches:
        available = ", ".join(folder.name for folder in _folders(root)) or "none"
        raise Fault(f"model not found in {root}: {name}. Available: {available}.", "model-missing")
    return matches


def _parts(folder: Path) -> dict[str, str]:
    match = _OURS.fullmatch(folder.name)
    return match.groupdict() if match else {}


def _is_partial(folder: Path) -> bool:
    return bool(_parts(folder)["partial"])


def _needed() -> dict[str, list[int]]:
    """The paths that generations use, with the generations' numbers."""
    needed: dict[str, list[int]] = {}
    for file in _GENERATIONS.glob("*/generation.json"):
        manifest = _read(file)
        for path in manifest.get("disk", ()):
            needed.setdefault(path, []).append(manifest["number"])
    return {path: sorted(numbers) for path, numbers in needed.items()}


def _described(folder: Path, needed: dict[str, list[int]]) -> dict[str, Any]:
    record, parts = _read(folder / _RECORD), _parts(folder)
    stored = sum(min(stat.st_size, stat.st_blocks * 512) for stat in map(os.lstat, _files(folder)))
    total = record.get("bytes") or (0 if parts["partial"] else stored)
    return {
        "name": parts["name"],
        "folder": folder.name,
        "path": str(folder),
        "format": record.get("format", ""),
        "source": record.get("source", ""),
        "bytes": stored,
        "total": total,
        "partial": bool(parts["partial"]),
        "fetching": bool(parts["partial"]) and _is_active(parts["digest"]),
        "generations": needed.get(str(folder), []),
    }


def _verified(folder: Path) -> dict[str, Any]:
    """The damaged and missing files in `folder`, by kind."""
    recorded = {name: file["sha256"] for name, file in _read(folder / _RECORD).get("files", {}).items()}
    paths = _files(folder)
    with ThreadPoolExecutor() as pool:
        digests = dict(zip((str(path.relative_to(folder)) for path in paths), pool.map(_sha256, paths), strict=True))
    if not recorded:  # of an earlier version: the directory's name verifies all files, but not which one is damaged
        combined = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
        good = combined.startswith(_parts(folder)["digest"])
        return {"good": good, "files": len(digests), "damaged": [] if good else ["one or more files"], "missing": []}
    damaged = sorted(name for name, digest in digests.items() if recorded.get(name, digest) != digest)
    missing = sorted(set(recorded) - set(digests))
    return {"good": not damaged and not missing, "files": len(recorded), "damaged": damaged, "missing": missing}


def _files(folder: Path) -> list[Path]:
    """The model's files; of a partial model also hidden ones, which are the partial files."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != _RECORD)
    complete = not _is_partial(folder)
    return sorted(
        path for path in paths if not (complete and any(part[0] == "." for part in path.relative_to(folder).parts))
    )


def _removed(folders: list[Path]) -> dict[str, Any]:
    freed = 0
    for folder in folders:
        if _is_partial(folder):
            subprocess.run(["systemctl", "stop", _unit(_parts(folder)["digest"])], capture_output=True, check=False)
        freed += sum(path.stat().st_blocks * 512 for path in _files(folder))
        shutil.rmtree(folder)
    return {"folders": [folder.name for folder in folders], "bytes": freed}


def _unit(digest: str) -> str:
    return f"zorac-deploy-fetch-{digest}.service"


def _is_active(digest: str) -> bool:
    return subprocess.run(["systemctl", "is-active", "--quiet", _unit(digest)], check=False).returncode == 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def main() -> None:
    """Parse the command line and run the command."""
    parser = argparse.ArgumentParser(description="Manage the models of this host.")
    parser.add_argument("root", type=Path)
    parser.add_argument("word", choices=["list", "verify", "remove", "clean"])
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    try:
        result: object
        if arguments.word == "list":
            result = listed(arguments.root)
        elif arguments.word == "verify":
            result = verify(arguments.root, arguments.name)
        elif arguments.word == "remove":
            result = remove(arguments.root, arguments.name, arguments.force)
        else:
            result = clean(arguments.root)
        print(json.dumps(result))
    except Fault as fault:
        message, refusal = fault.args
        print(json.dumps({"refusal": {"id": refusal, "message": message}}))
        sys.exit(4)
    except OSError as fault:
        sys.exit(str(fault))


if __name__ == "__main__":
    main()
