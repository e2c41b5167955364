"""Plan the engine's memory; see `zorac_deploy.actions.plan_memory`."""

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `plan_memory`."""

    _requires_connection = False

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        """Run the action."""
        from zorac_deploy import actions  # here: `require_package` reports a missing package

        return actions.plan_memory(self._task.args)
