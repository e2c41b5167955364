"""Refuse flags of vLLM that cannot be; see `zorac_deploy.actions.check_vllm_flags`."""

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `check_vllm_flags`."""

    _requires_connection = False

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        """Do it, and return the task's result."""
        from zorac_deploy import actions  # here, for `require_package` explains its absence

        return actions.check_vllm_flags(self._task.args)
