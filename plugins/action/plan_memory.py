"""Plan the memory that an engine takes; see `zorac_deploy.actions.plan_memory`."""

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `plan_memory`."""

    _requires_connection = False

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        """Do it, and return the task's result."""
        from zorac_deploy import actions  # here, for `require_package` explains its absence

        return actions.plan_memory(self._task.args)
