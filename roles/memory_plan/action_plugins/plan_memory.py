"""Plan the memory that an engine takes; see `zorac_deploy.actions.plan_memory`."""

import sys
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """The action `plan_memory`."""

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
        return actions.plan_memory(self._task.args)
