"""Ansible action: have the host program as one executable file, built here from its sources.

The file is a zip archive that Python runs. The same sources give the same bytes on every controller: names are sorted,
times are fixed, and nothing is compressed, for compressors differ. The module ``whole_file`` puts it in place.
"""

import base64
import io
import zipfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

_SHEBANG = b"#!/usr/bin/python3 -I\n"
_MAIN = "from {package}.cli import main\n\nmain()\n"
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive knows


def build(package: Path) -> bytes:
    """The program whose command line is ``cli.main`` of the Python package in the folder `package`."""
    texts = {f"{package.name}/{path.name}": path.read_bytes() for path in package.glob("*.py")}
    texts["__main__.py"] = _MAIN.format(package=package.name).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(texts):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 3  # Unix, whatever the controller is
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, texts[name])
    return _SHEBANG + buffer.getvalue()


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """Build the program from ``source`` and have it at ``path`` of the host."""

    _VALID_ARGS = frozenset(("source", "path"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Build the program here and run the module ``whole_file`` there."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        try:
            program = build(Path(self._task.args["source"]))
        except (KeyError, OSError) as error:
            raise AnsibleActionFail(f"the host program cannot be built: {error!r}") from None
        arguments = {
            "path": self._task.args.get("path"),
            "content": base64.b64encode(program).decode(),
            "mode": "0755",
        }
        result.update(self._execute_module("whole_file", module_args=arguments, task_vars=task_vars))
        return result
