"""End a host's run with a refusal: a message, and an id that has its own exit code."""

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `refuse`: ``id`` is one of `zorac_deploy.errors.REFUSALS`; ``message`` says what is needed."""

    _requires_connection = False
    _VALID_ARGS = frozenset(("id", "message"))

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        """Fail with the refusal."""
        from zorac_deploy import actions  # here: `require_package` reports a missing package

        return actions.refuse(self._task.args)
