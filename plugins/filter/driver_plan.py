"""Ansible filter: the driver plan for a host; see `zorac_deploy.driver`."""

from collections.abc import Callable, Mapping
from typing import Any


def driver_plan(facts: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `zorac_deploy.driver.Plan` for a host with these facts."""
    from zorac_deploy import driver  # here: `require_package` reports a missing package

    return driver.plan(facts, driver.Wanted(**wanted)).summary()


class FilterModule:
    """The filter by name."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """The filters of this file."""
        return {"driver_plan": driver_plan}
