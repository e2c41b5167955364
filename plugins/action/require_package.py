"""Require that the Python package zorac-deploy is installed where Ansible runs; the other actions import it."""

import sys
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `require_package`."""

    _requires_connection = False

    def run(self, *_: object, **__: object) -> dict[str, Any]:
        """Import the package, or say what to install."""
        try:
            import zorac_deploy.actions
        except ImportError as fault:
            return {
                "failed": True,
                "msg": f"The Python that runs Ansible, {sys.executable}, cannot import zorac_deploy: {fault}. Run "
                "ansible-playbook from the environment in which zorac-deploy is installed, or install it in this one.",
            }
        return {"changed": False, "version": zorac_deploy.__version__}
