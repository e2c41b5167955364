"""Ask the host program where it is not installed yet, or may be another version: it runs from memory."""

import json
import shlex
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `ask_host`: run the program with the words ``argv``; what it prints is the result's ``answer``."""

    _VALID_ARGS = frozenset(("argv",))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send the program, built here, to the host's Python by its standard input."""
        from zorac_deploy import zipapp  # here, for `require_package` explains its absence

        result: dict[str, Any] = super().run(tmp, task_vars)
        words = ["/usr/bin/python3", "-I", "-c", zipapp.LOADER, *map(str, self._task.args["argv"])]
        done = self._low_level_execute_command(shlex.join(words), in_data=zipapp.build())
        if done["rc"] != 0:
            return {**result, "failed": True, "msg": done["stderr"].strip() or f"exit code {done['rc']}"}
        try:
            answer = json.loads(done["stdout"])
        except ValueError:
            return {**result, "failed": True, "msg": f"the host program answered {done['stdout'][:200]!r}"}
        told = answer if isinstance(answer, dict) else {}
        return {**result, "changed": bool(told.get("changed")), "answer": answer, "diff": told.get("diff", [])}
