"""Require that Ansible's Python has the package zorac-deploy, which the other actions import."""

import sys
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.loader import filter_loader, test_loader

# Ansible loads an action in the process from which it forks a worker for each task. What is loaded here is not loaded
# again by each later task: 0.15 s for the imports, 0.04 s for the filters and tests of templates.
filter_loader.get("default")
test_loader.get("match")
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
        """Fail with an instruction if the package cannot be imported."""
        if _FAULT:
            return {
                "failed": True,
                "msg": f"the Python that runs Ansible, {sys.executable}, cannot import zorac_deploy: {_FAULT}. Run "
                "ansible-playbook from the environment in which zorac-deploy is installed, or install it in this one.",
            }
        return {"changed": False, "version": zorac_deploy.__version__}
