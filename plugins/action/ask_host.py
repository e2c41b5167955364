"""Run the host program. It is sent to the host, because the installed one may be missing or of another version."""

import shlex
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `ask_host`: run the program, or the installed one ``program``, with the arguments ``argv``.

    The result has its ``answer``, or its refusal.
    """

    _VALID_ARGS = frozenset(("argv", "program"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send the program, built here, to the host's Python on standard input; or run the installed one."""
        from zorac_deploy import actions, zipapp  # here: `require_package` reports a missing package

        result: dict[str, Any] = super().run(tmp, task_vars)
        program, arguments = self._task.args.get("program"), list(map(str, self._task.args["argv"]))
        if program:
            done = self._low_level_execute_command(shlex.join([program, *arguments]))
        else:
            command = ["/usr/bin/python3", "-I", "-c", zipapp.LOADER, *arguments]
            done = self._low_level_execute_command(shlex.join(command), in_data=zipapp.packed())
        return {**result, **actions.host_answer(done, str((task_vars or {}).get("inventory_hostname", "the host")))}
