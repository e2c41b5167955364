"""Ask the host program. It runs from memory, for it may not be installed yet, or may be another version."""

import shlex
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `ask_host`: run the program, or the one installed as ``program``, with the words ``argv``.

    The result has its ``answer``, or its refusal.
    """

    _VALID_ARGS = frozenset(("argv", "program"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send the program, built here, to the host's Python by its standard input; or run the one that is there."""
        from zorac_deploy import actions, zipapp  # here, for `require_package` explains its absence

        result: dict[str, Any] = super().run(tmp, task_vars)
        program, words = self._task.args.get("program"), list(map(str, self._task.args["argv"]))
        if program:
            done = self._low_level_execute_command(shlex.join([program, *words]))
        else:
            command = ["/usr/bin/python3", "-I", "-c", zipapp.LOADER, *words]
            done = self._low_level_execute_command(shlex.join(command), in_data=zipapp.build())
        return {**result, **actions.host_answer(done, str((task_vars or {}).get("inventory_hostname", "the host")))}
