"""Ansible filter: which driver a host gets; see `zorac_deploy.driver`."""

from collections.abc import Callable, Mapping
from typing import Any


def driver_plan(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The plan for a host with these facts, by the fields of `zorac_deploy.driver.Plan`."""
    from zorac_deploy import driver  # here, for `require_package` explains its absence

    return driver.plan(facts, driver.Wanted(**wanted)).summary()


class FilterModule:
    """The filter by name."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Every filter of this file."""
        return {"driver_plan": driver_plan}
