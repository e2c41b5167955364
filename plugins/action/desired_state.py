"""Record a host's desired state; see `zorac_deploy.actions.desired_state`."""

import json
import shlex
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `desired_state`: validate the document, and have the host program record it."""

    _VALID_ARGS = frozenset(("program", "host", "profile", "inputs", "parts", "plan"))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Record the document, or with --check only compare it."""
        from zorac_deploy import actions  # here: `require_package` reports a missing package

        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        command = [str(arguments.pop("program")), "apply", *(["--check"] if self._task.check_mode else [])]
        described = actions.desired_state(arguments)
        if "document" not in described:
            return {**result, **described}
        done = self._low_level_execute_command(shlex.join(command), in_data=json.dumps(described["document"]).encode())
        if done["rc"] != 0 and self._task.check_mode:  # the host program is missing before the first deployment
            return {**result, "changed": True, "ansible_facts": {"desired_state_document": described["document"]}}
        outcome = actions.host_answer(done, str(arguments["host"]))
        if "answer" not in outcome:
            return {**result, **outcome}
        return {**result, **actions.applied(described["document"], outcome["answer"], self._task.check_mode)}
