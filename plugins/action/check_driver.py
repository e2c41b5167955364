"""Require that the driver can be installed; see `zorac_deploy.actions.check_driver`."""

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `check_driver`."""

    _requires_connection = False

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        """Run the action."""
        from zorac_deploy import actions  # here: `require_package` reports a missing package

        return actions.check_driver(self._task.args)
