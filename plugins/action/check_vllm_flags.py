"""Refuse invalid vLLM flags; see `zorac_deploy.actions.check_vllm_flags`."""

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `check_vllm_flags`."""

    _requires_connection = False

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        """Run the action."""
        from zorac_deploy import actions  # here: `require_package` reports a missing package

        return actions.check_vllm_flags(self._task.args)
