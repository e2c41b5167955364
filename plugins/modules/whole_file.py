#!/usr/bin/python
"""Ansible module: have a file with the given bytes; a kill or a power cut leaves the old file or the new one."""

import base64
import hashlib
import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = """
module: whole_file
short_description: Have a file of root's with the given bytes, put in place by one rename
description:
  - The bytes are written under another name in the same folder, with their mode, forced to the disk, and renamed.
  - Supports check mode and diff, which shows digests. C(changed) means that the bytes, the mode or the owner differed.
options:
  path:
    description: The file. Its folder must exist.
    type: path
    required: true
  content:
    description: The bytes, in Base64.
    type: str
    required: true
  mode:
    description: The file's mode, as an octal number.
    type: str
    required: true
"""


def main() -> None:
    """Have the file, and say whether it was another one."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "required": True, "no_log": True},  # too long for a log, and no secret
            "mode": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    path, mode = Path(module.params["path"]), int(module.params["mode"], 8)
    wanted = base64.b64decode(module.params["content"])
    before, after = _described(path), _words(wanted, mode, os.geteuid())
    if before != after and not module.check_mode:
        _write(path, wanted, mode)
    module.exit_json(changed=before != after, diff={"before": before, "after": after})


def _described(path: Path) -> str:
    """The file as it is; empty if there is none, and no file's words if a link or a folder has its name."""
    if path.is_symlink() or not path.is_file():
        return "not a regular file\n" if path.is_symlink() or path.exists() else ""
    found = path.stat()
    return _words(path.read_bytes(), found.st_mode & 0o7777, found.st_uid)


def _words(content: bytes, mode: int, owner: int) -> str:
    return f"sha256 {hashlib.sha256(content).hexdigest()}\nmode {mode:04o}\nowner {owner}\n"


def _write(path: Path, content: bytes, mode: int) -> None:
    scratch = path.with_name(f".{path.name}.partial")
    scratch.unlink(missing_ok=True)
    try:
        with scratch.open("xb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        scratch.rename(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


if __name__ == "__main__":
    main()
