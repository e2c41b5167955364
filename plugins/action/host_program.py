"""Have the host program as one executable file, which `zorac_deploy.zipapp` builds and ``whole_file`` writes."""

import base64
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):  # type: ignore[misc] # Ansible ships no types
    """The action `host_program`: have the program at ``path`` of the host."""

    _VALID_ARGS = frozenset(("path",))

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Build the program here and write it there."""
        from zorac_deploy import zipapp  # here, for `require_package` explains its absence

        result: dict[str, Any] = super().run(tmp, task_vars)
        content = base64.b64encode(zipapp.build()).decode()
        arguments = {"path": self._task.args.get("path"), "content": content, "mode": "0755"}
        result.update(self._execute_module("whole_file", module_args=arguments, task_vars=task_vars))
        return result
