"""Require that the Python package zorac-deploy is installed where Ansible runs; the other actions import it."""

import sys
from typing import Any

from ansible.plugins.action import ActionBase

# Ansible loads an action in the process from which it forks a worker for each task. What is imported here, no task
# after it imports again: 0.15 s each.
try:
    import zorac_deploy.actions
    import zorac_deploy.zipapp
except ImportError as fault:
    _FAULT = str(fault)
else:
    _FAULT = ""


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `require_package`."""

    _requires_connection = False

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        """Say what to install where the package cannot be imported."""
        if _FAULT:
            return {
                "failed": True,
                "msg": f"the Python that runs Ansible, {sys.executable}, cannot import zorac_deploy: {_FAULT}. Run "
                "ansible-playbook from the environment in which zorac-deploy is installed, or install it in this one.",
            }
        return {"changed": False, "version": zorac_deploy.__version__}
