#!/usr/bin/python
"""Ansible module: create a generation with the given files."""

import errno
import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: generation
short_description: Create a generation with the given files
description:
  - A generation is a numbered directory that never changes. The same files and the same description, except C(plan)
    and C(model_source), are the same generation; others become a new one. Nothing is activated.
  - Changed or removed files of the generation are written again.
  - Supports check mode and diff, which compares with the current generation.
options:
  root:
    description: Directory with C(generations) and the link C(current).
    type: path
    required: true
  files:
    description: Names and contents. C(@GENERATION@) becomes the generation's directory.
    type: dict
    required: true
  about:
    description: What it serves, and its settings. Stored as C(generation.json).
    type: dict
    required: true
"""
RETURN = """
number:
  description: Number of the generation.
  returned: always
  type: int
digest:
  description: Digest of its files and its description.
  returned: always
  type: str
repaired:
  description: Files that were written again.
  returned: always
  type: list
  elements: str
"""
_PLACE = "@GENERATION@"


def main() -> None:
    """Create the generation if needed, and return its number."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "files": {"type": "dict", "required": True},
            "about": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    root = Path(module.params["root"])
    files: dict[str, str] = module.params["files"]
    manifest: dict[str, Any] = module.params["about"]
    digest = hashlib.sha256(json.dumps([files, _identity(manifest)], sort_keys=True).encode()).hexdigest()
    folders = {int(path.name): path for path in (root / "generations").glob("*") if path.name.isdecimal()}
    same = [number for number, folder in folders.items() if _manifest(folder).get("digest") == digest]
    number = max(same) if same else max(folders, default=0) + 1
    repaired = _damaged(folders[number], files) if same else []
    if not module.check_mode:
        described = {"number": number, "created": int(time.time()), "digest": digest, **manifest}
        try:
            if not same:
                text = json.dumps(described, indent=2) + "\n"
                _write(root / "generations", number, {**files, "generation.json": text})
            for name in repaired:
                _write_file(folders[number] / name, files[name].replace(_PLACE, str(folders[number])))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            message = (
                f"no space left for a new generation under {root}. The running generation is not changed. "
                "Free some space, then re-run the command."
            )
            module.fail_json(msg=message, refusal={"id": "disk-full", "message": message})
    module.exit_json(
        changed=not same or bool(repaired),
        number=number,
        digest=digest,
        repaired=repaired,
        diff=_diff(root / "current", files, manifest),
    )


def _damaged(folder: Path, files: dict[str, str]) -> list[str]:
    """The files in `folder` that differ from what was written."""
    return [
        name
        for name, text in files.items()
        if (folder / name).is_symlink() or _text(folder / name) != text.replace(_PLACE, str(folder))
    ]


def _write(parent: Path, number: int, files: dict[str, str]) -> None:
    """Write the directory, completely or not at all, and force it to the disk."""
    parent.mkdir(parents=True, exist_ok=True)
    parent.chmod(0o755)  # independent of root's umask: the engine's user reads it
    for leftover in parent.glob("*.partial"):
        shutil.rmtree(leftover)
    scratch, folder = parent / f"{number}.partial", parent / str(number)
    try:
        scratch.mkdir()
        scratch.chmod(0o755)
        for name, text in files.items():
            _write_file(scratch / name, text.replace(_PLACE, str(folder)))
        _sync(scratch)
        scratch.rename(folder)
    except OSError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    _sync(parent)


def _write_file(path: Path, text: str) -> None:
    """Write the file, world-readable and read-only."""
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.chmod(0o444)
    partial.rename(path)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "generation.json").read_text()))
    except (OSError, ValueError):
        return {}


def _diff(current: Path, files: dict[str, str], manifest: dict[str, Any]) -> list[dict[str, str]]:
    """The differences between the current and the new generation, by file."""
    folder = current.resolve()
    texts = {name: _text(folder / name).replace(str(folder), _PLACE) for name in files}
    described = {
        name: value for name, value in _manifest(folder).items() if name not in ("number", "created", "digest")
    }
    pairs = {name: (texts[name], text) for name, text in files.items()}
    pairs["generation.json"] = (_pretty(_identity(described)), _pretty(_identity(manifest)))
    return [
        {"before": before, "after": after, "before_header": f"current/{name}", "after_header": f"wanted/{name}"}
        for name, (before, after) in pairs.items()
        if before != after
    ]


def _identity(manifest: dict[str, Any]) -> dict[str, Any]:
    """The values whose change makes a new generation: all but the files' origin and derived values."""
    return {name: value for name, value in manifest.items() if name not in ("plan", "model_source")}


def _pretty(manifest: dict[str, Any]) -> str:
    return json.dumps(manifest, indent=2, sort_keys=True) + "\n" if manifest else ""


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


if __name__ == "__main__":
    main()
