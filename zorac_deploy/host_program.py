"""Run the host program, and validate its answers.

The program may be missing, older, newer, damaged or another one: each case has its own error.
"""

import json
from typing import Any, TypeVar

from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, ValidationError

from zorac_deploy import __version__
from zorac_deploy.connection import Connection
from zorac_deploy.desired import Verification
from zorac_deploy.errors import HostProgramUnusable, NotDeployed, ZoracDeployError, refused
from zorac_host import PROTOCOL

PATH = "/usr/local/lib/zorac-deploy/zorac-host"
_ABSENT = f"sudo: {PATH}: command not found"

_Answer = TypeVar("_Answer", bound=BaseModel)


class _Told(BaseModel):
    """The base of all answers. Unknown fields are ignored: a later version may have more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Unit(_Told):
    """The engine's unit in systemd, see `deployment.Deployment`."""

    state: str
    since: int | None
    restarts: int
    enabled: bool


class Outcome(_Told):
    """The result of a generation's last activation; empty without one."""

    state: str = ""
    at: int | None = None
    by: str = ""
    previous: int | None = None
    reason: str = ""
    cause: str = ""
    back_failure: str = ""
    lines: tuple[str, ...] = ()
    diagnosis: tuple[dict[str, Any], ...] = ()
    engine: dict[str, Any] = {}
    order: int = 0
    seconds: dict[str, float] = {}


class Generation(BaseModel):
    """A generation: the fields that zorac-deploy uses, and all others that it has."""

    model_config = ConfigDict(extra="allow", frozen=True)

    number: int
    created: int
    profile: str
    engine: str
    model: str
    model_path: str
    max_model_len: int | None
    host: str
    port: int
    plan: dict[str, Any] = {}
    outcome: Outcome = Outcome()


class Pending(_Told):
    """An activation in progress."""

    target: int
    by: str


class Watchdog(_Told):
    """The watchdog's state between two checks."""

    helped: tuple[float, ...] = ()
    doubt: str = ""
    gave_up: str = ""


class Status(_Told):
    """What runs, the activation in progress, and every generation."""

    current: int | None
    pending: Pending | None = None
    watchdog: Watchdog = Watchdog()
    generations: tuple[Generation, ...]
    unit: Unit | None = None
    health: str = ""


class Activated(Outcome):
    """The result of an activation; `changed` is false if nothing was done."""

    changed: bool
    state: str = "proved"


class Restored(_Told):
    """What was restored, a line each."""

    restored: tuple[str, ...]


class Collected(_Told):
    """What was removed, or would be."""

    generations: tuple[int, ...]
    paths: tuple[str, ...]
    bytes: int


class _Version(_Told):
    version: str
    protocol: int


class Verified(Verification):
    """A verification with the status, from one call."""

    status: Status  # type: ignore[assignment]


def ask(connection: Connection, answer: type[_Answer], *arguments: str) -> _Answer:
    """Run the host program with `arguments` on the connection's host, and return its answer.

    Raises:
        NotDeployed: The program is not installed.
        HostProgramUnusable: It has another version, is damaged, or is another program.
        Refused: It refused.
    """
    done = connection.run(PATH, *arguments)
    name, message = connection.target.name, done.stderr.strip()
    # Only the shell's exit code or sudo's message about this program count: ssh, too, warns of missing files.
    if done.returncode == 127 or (done.returncode == 1 and _ABSENT in message.splitlines()):
        raise NotDeployed(f"nothing is deployed on {name}. Deploy it with: zorac-deploy up, and the same host options.")
    if done.returncode != 0:
        if refusal := refused(done.stdout):
            raise refusal
        connection.check()
        raise _fault(connection, done.returncode, message)
    try:
        return answer.model_validate(json.loads(done.stdout))
    except (ValueError, RecursionError) as fault:
        raise _unusable(connection, _complaint(fault, done.stdout)) from None


def _complaint(fault: Exception, text: str) -> str:
    if isinstance(fault, ValidationError):
        first = fault.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'its answer'}: {first['msg']}"
    return f"not JSON: {text[:60]!r}" if text else "nothing"


def _fault(connection: Connection, code: int, message: str) -> ZoracDeployError:
    """The error for a program that ended with `code`: its own, or that of an unusable program."""
    version = _version(connection)
    if code == 1 and version and version.protocol == PROTOCOL:
        return ZoracDeployError(f"the host program of {connection.target.name} failed: {message[-500:]}")
    return _unusable(connection, message.splitlines()[-1] if message else f"exit code {code}, and no message")


def _version(connection: Connection) -> _Version | None:
    try:
        return _Version.model_validate_json(connection.run(PATH, "version").stdout)
    except ValueError:
        return None


def is_newer(version: str) -> bool:
    """Whether the host's `version` of zorac-deploy is later than this one. What is no version is not."""
    try:
        return Version(version) > Version(__version__)
    except InvalidVersion:
        return False


def newer(name: str, version: str) -> HostProgramUnusable:
    """The error for the host `name`, which a later `version` of zorac-deploy deployed."""
    return HostProgramUnusable(
        f"{name} was deployed by zorac-deploy {version}, which is newer than this one ({__version__}). "
        "Upgrade zorac-deploy on this machine. To deploy this older version: zorac-deploy up --full, and the same host "
        "options.",
        newer=True,
    )


def require_not_newer(connection: Connection) -> None:
    """Require that no later version of zorac-deploy deployed the connection's host.

    Raises:
        HostProgramUnusable: One did.
    """
    version = _version(connection)
    if version and is_newer(version.version):
        raise newer(connection.target.name, version.version)


def _unusable(connection: Connection, answer: str) -> HostProgramUnusable:
    """The error for a program that answered `answer`, with its version if known."""
    name, version = connection.target.name, _version(connection)
    if version and (version.protocol > PROTOCOL or is_newer(version.version)):
        return HostProgramUnusable(
            f"{name} was deployed by zorac-deploy {version.version}, which is newer than this one ({__version__}). "
            f"It answered: {answer}. Upgrade zorac-deploy on this machine.",
            newer=True,
        )
    return HostProgramUnusable(
        f"the host program of {name} gave an unexpected answer: {answer}. "
        "Deploy the host again to replace it: zorac-deploy up, and the same host options."
    )
