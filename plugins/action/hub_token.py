"""Read the token for the hub; see `zorac_deploy.actions.hub_token`."""

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `hub_token`."""

    _requires_connection = False

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        """Do it, and return the task's result."""
        from zorac_deploy import actions  # here, for `require_package` explains its absence

        return actions.hub_token(self._task.args)
