"""All checks of a host. An earlier check's finding may be the cause of a later one's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from zorac_deploy.doctor.check_engine import drift, endpoint, port, unit
from zorac_deploy.doctor.check_gpu import driver, gpu_health, memory
from zorac_deploy.doctor.check_system import disks, packages
from zorac_deploy.doctor.trouble import Facts, Trouble

_CHECKS: tuple[Callable[[Facts, str], Iterator[Trouble]], ...] = (
    disks,
    packages,
    driver,
    gpu_health,
    port,
    memory,
    drift,
    unit,
    endpoint,
)


def all_of(facts: Facts, name: str) -> Iterator[Trouble]:
    """All findings, in the order of the checks.

    Args:
        facts: The results of the probes, by name.
        name: The host's name on a command line.
    """
    for check in _CHECKS:
        yield from check(facts, name)
