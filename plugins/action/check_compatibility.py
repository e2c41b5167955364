"""Require that GPUs, driver and engine are compatible; see `zorac_deploy.actions.check_compatibility`."""

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `check_compatibility`."""

    _requires_connection = False

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        """Run the action."""
        from zorac_deploy import actions  # here: `require_package` reports a missing package

        return actions.check_compatibility(self._task.args)
