"""Read the hub token; see `zorac_deploy.actions.hub_token`."""

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `hub_token`."""

    _requires_connection = False

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        """Run the action."""
        from zorac_deploy import actions  # here: `require_package` reports a missing package

        return actions.hub_token(self._task.args)
