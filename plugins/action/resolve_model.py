"""Find out which files a model consists of; see `zorac_deploy.actions.resolve_model`."""

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `resolve_model`."""

    _requires_connection = False

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        """Do it, and return the task's result."""
        from zorac_deploy import actions  # here, for `require_package` explains its absence

        return actions.resolve_model(self._task.args)
