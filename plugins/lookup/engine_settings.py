"""The engine's settings, as the inventory sets them; see `zorac_deploy.engine_settings`."""

from collections.abc import Mapping
from typing import Any

from ansible.plugins.lookup import LookupBase


class LookupModule(LookupBase):  # type: ignore[misc] # Ansible ships no types
    """The lookup `engine_settings`: the value of each setting's variable, or its default."""

    def run(self, _: list[object], variables: Mapping[str, Any], **__: object) -> list[dict[str, Any]]:
        """Render the variables' templates."""
        from zorac_deploy.engine_settings import SETTINGS  # here: `require_package` reports a missing package

        values = {setting.name: variables.get(setting.variable, setting.default) for setting in SETTINGS}
        return [self._templar.template(values)]
