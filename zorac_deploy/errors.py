"""Everything that can go wrong, as one tree, and the exit code that each fault has.

::

    ZoracDeployError              1   a fault without a class of its own
    ├── InventoryError            3   no inventory, not YAML, unknown host, no host named
    │   └── UnknownProfile        4   the profile is in no inventory
    ├── HostUnreachable         10   the host does not answer
    │   ├── KeyRefused           11   it answers and refuses the SSH key
    │   ├── HostKeyChanged       12   it is not the machine that was known by this address
    │   └── SudoRefused          13   the user may not become root
    ├── HostBusy                 14   another run holds the host's lock
    ├── Refused        20-39, 60-99   a role looked and said no; see REFUSALS
    ├── HostProgramUnusable      15   the program on the host is another version, damaged, or not ours
    ├── Refused        20-39, 60-79   a role looked and said no; see REFUSALS
    ├── DeploymentFailed         40   a role failed while it changed the host
    ├── SmokeFailed              41   the endpoint does not answer as it must
    ├── NotDeployed              42   there is no deployment on the host
    ├── EndpointFailed           43   the endpoint refused or dropped a request
    ├── SandboxError             50   a throwaway host could not be made or removed
    └── Interrupted             130   Ctrl-C

Click itself answers 2 for a command line it cannot read; a run that SIGHUP or SIGTERM ended answers 129 or 143. A
message is written once, where the fault is found. It says what was found, what is needed and what to type.
"""

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import ClassVar


class ZoracDeployError(Exception):
    """The root of the tree. `str(error)` is the message for the person."""

    exit_code: ClassVar[int] = 1


class InventoryError(ZoracDeployError):
    """The inventory cannot be read, or does not say which host is meant."""

    exit_code = 3


class UnknownProfile(InventoryError):
    """The profile asked for is not one of the inventory's groups under gpu_servers."""

    exit_code = 4


class HostUnreachable(ZoracDeployError):
    """The host cannot be reached over SSH."""

    exit_code = 10


class KeyRefused(HostUnreachable):
    """The host answers but accepts none of the SSH keys offered."""

    exit_code = 11


class HostKeyChanged(HostUnreachable):
    """The host shows another key than the one recorded for its address."""

    exit_code = 12


class SudoRefused(HostUnreachable):
    """The user on the host may not become root without a password, or the password is wrong."""

    exit_code = 13


class HostBusy(ZoracDeployError):
    """Another run of zorac-deploy holds the lock on the host."""

    exit_code = 14


class HostProgramUnusable(ZoracDeployError):
    """The program on the host does not answer as this version of zorac-deploy expects.

    Attributes:
        newer: Whether it is of a later version, so that this one is to be upgraded rather than the host.
    """

    exit_code = 15

    def __init__(self, message: str, newer: bool = False) -> None:
        super().__init__(message)
        self.newer = newer


# The id of every refusal, with its exit code.
REFUSALS: dict[str, int] = {
    "unsupported-system": 20,
    "no-systemd": 21,
    "engine-unknown": 22,
    "engine-no-space": 23,
    "engine-no-python": 24,
    "model-missing": 25,
    "model-incomplete": 26,
    "model-damaged": 27,
    "model-no-space": 28,
    "port-taken": 29,
    "apt-locked": 30,
    "power-limit-invalid": 31,
    "rolled-back": 32,
    "generation-unknown": 33,
    "disk-full": 34,
    "model-gated": 35,
    "model-unreachable": 36,
    "model-unknown": 37,
    "model-does-not-fit": 38,
    "settings-invalid": 39,
    "gpu-missing": 60,
    "gpu-unknown": 61,
    "gpu-unknown-engine": 62,
    "gpu-too-old": 63,
    "kv-dtype-unsupported": 64,
    "driver-missing": 65,
    "driver-too-old": 66,
    "driver-foreign": 67,
    "apt-broken": 68,
    "boot-full": 69,
    "secure-boot": 70,
    "reboot-needed": 71,
    "driver-broken": 72,
    "driver-not-installed": 73,
    "driver-dead": 74,
    "reboot-failed": 75,
    "secure-boot-enrolment": 76,
    "gpu-not-found": 77,
    "gpu-memory-held": 78,
    "desktop-in-use": 79,
    "model-unsafe": 80,
    "format-unsupported": 81,
    "recipe-invalid": 82,
    "bundle-damaged": 83,
    "model-in-use": 84,
    "setting-slower": 85,
    "quantize-failed": 86,
    "bundle-unfit": 87,
    "lock-unsafe": 90,
    "unit-foreign": 92,
    "user-foreign": 93,
    "disk-no-space": 94,
    "drift-left": 99,
}


class Refused(ZoracDeployError):
    """A role said no: before anything was changed, or with all put back, or where a person must go on.

    Attributes:
        refusal: The id of the refusal, one of `REFUSALS`.
    """

    exit_code = 39

    def __init__(self, message: str, refusal: str) -> None:
        super().__init__(message)
        self.refusal = refusal


class DeploymentFailed(ZoracDeployError):
    """A role failed while it changed the host."""

    exit_code = 40


class SmokeFailed(ZoracDeployError):
    """The endpoint is there, but a check of it failed.

    Attributes:
        failed: The names of the checks that failed.
    """

    exit_code = 41

    def __init__(self, message: str, failed: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.failed = tuple(failed)


class NotDeployed(ZoracDeployError):
    """The host has no deployment of zorac-deploy."""

    exit_code = 42


class EndpointFailed(ZoracDeployError):
    """The endpoint refused a request, or the connection to it broke."""

    exit_code = 43


class SandboxError(ZoracDeployError):
    """A throwaway host could not be made, reached or removed."""

    exit_code = 50


class Interrupted(ZoracDeployError):
    """The person pressed Ctrl-C."""

    exit_code = 130


def refused(answer: object) -> Refused | None:
    """The refusal in an `answer`, a task's result or what a program of ours printed; None if it has none."""
    if isinstance(answer, str):
        with contextlib.suppress(ValueError, RecursionError):
            return refused(json.loads(answer))
    found = answer.get("refusal") if isinstance(answer, Mapping) else None
    if isinstance(found, Mapping) and found.get("id") in REFUSALS:
        return Refused(str(found.get("message")), str(found["id"]))
    return None


def exit_code_of(error: ZoracDeployError) -> int:
    """The process exit code for `error`."""
    if isinstance(error, Refused):
        return REFUSALS[error.refusal]
    return error.exit_code
