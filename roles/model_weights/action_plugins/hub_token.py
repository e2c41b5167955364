"""Read the token for the hub; see `zorac_deploy.actions.hub_token`."""

import sys
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """The action `hub_token`."""

    _requires_connection = False

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        """Do it, and return the task's result."""
        try:
            from zorac_deploy import actions  # here, so that its absence can be explained
        except ImportError as fault:
            return {
                "failed": True,
                "msg": f"The Python that runs Ansible, {sys.executable}, cannot import zorac_deploy: {fault}. Run "
                "ansible-playbook from the environment in which zorac-deploy is installed, or install it in this one.",
            }
        return actions.hub_token(self._task.args)
