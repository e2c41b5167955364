"""Ask the program on a host, and accept nothing that it would not say.

What answers may be missing, older, newer, damaged or not ours at all: each is told apart, with what to type.
"""

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from zorac_deploy.connection import Connection
from zorac_deploy.desired import Verification
from zorac_deploy.errors import HostProgramUnusable, NotDeployed, ZoracDeployError, refused

PATH = "/usr/local/lib/zorac-deploy/zorac-host"
# The protocol that this version of zorac-deploy speaks, see zorac_host/__init__.py.
PROTOCOL = 1
_ABSENT = f"sudo: {PATH}: command not found"

_Answer = TypeVar("_Answer", bound=BaseModel)


class _Told(BaseModel):
    """A later version may say more."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Unit(_Told):
    """The unit of the engine as systemd sees it, see `deployment.Deployment`."""

    state: str
    since: int | None
    restarts: int
    enabled: bool


class Outcome(_Told):
    """What came of a generation's last activation; empty if there was none."""

    state: str = ""
    at: int | None = None
    by: str = ""
    previous: int | None = None
    reason: str = ""
    cause: str = ""
    back_failure: str = ""
    lines: tuple[str, ...] = ()
    engine: dict[str, Any] = {}
    order: int = 0
    seconds: dict[str, float] = {}


class Generation(BaseModel):
    """A generation: what is needed of it by name, and all else that it serves with."""

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
    """An activation under way."""

    target: int
    by: str


class Watchdog(_Told):
    """What the watchdog keeps between two looks."""

    helped: tuple[float, ...] = ()
    doubt: str = ""
    gave_up: str = ""


class Status(_Told):
    """What runs, what is under way, and every generation."""

    current: int | None
    pending: Pending | None = None
    watchdog: Watchdog = Watchdog()
    generations: tuple[Generation, ...]
    unit: Unit | None = None
    health: str = ""


class Activated(Outcome):
    """How an activation ended; `changed` is whether anything was done."""

    changed: bool
    state: str = "proved"


class Restored(_Told):
    """What was put back, a line each."""

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
    """A verification with what runs, from one call."""

    status: Status  # type: ignore[assignment]


def ask(connection: Connection, answer: type[_Answer], *words: str) -> _Answer:
    """What the program on the connection's host answers to `words`.

    Raises:
        NotDeployed: There is no program.
        HostProgramUnusable: It is another version, damaged, or something else.
        Refused: It refused.
    """
    done = connection.run(PATH, *words)
    name, said = connection.target.name, done.stderr.strip()
    # Only the shell's own exit code, or what sudo says of this very program: ssh, too, warns of files that it misses.
    if done.returncode == 127 or (done.returncode == 1 and _ABSENT in said.splitlines()):
        raise NotDeployed(f"nothing is deployed on {name}. Deploy it with: zorac-deploy up, and the same host options.")
    if done.returncode != 0:
        if refusal := refused(done.stdout):
            raise refusal
        connection.check()
        raise _fault(connection, done.returncode, said)
    try:
        return answer.model_validate(json.loads(done.stdout))
    except (ValueError, RecursionError) as fault:
        raise _unusable(connection, _complaint(fault, done.stdout)) from None


def _complaint(fault: Exception, text: str) -> str:
    if isinstance(fault, ValidationError):
        first = fault.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'its answer'}: {first['msg']}"
    return f"not JSON: {text[:60]!r}" if text else "nothing"


def _fault(connection: Connection, code: int, said: str) -> ZoracDeployError:
    """The error for a program that ended with `code`: its own word for it, or that of a program that cannot be used."""
    version = _version(connection)
    if code == 1 and version and version.protocol == PROTOCOL:
        return ZoracDeployError(f"the host program of {connection.target.name} failed: {said[-500:]}")
    return _unusable(connection, said.splitlines()[-1] if said else f"exit code {code}, and no message")


def _version(connection: Connection) -> _Version | None:
    try:
        return _Version.model_validate_json(connection.run(PATH, "version").stdout)
    except ValueError:
        return None


def _unusable(connection: Connection, found: str) -> HostProgramUnusable:
    """The error for a program that answered `found`, with what is known of its version."""
    name, version = connection.target.name, _version(connection)
    if version and version.protocol > PROTOCOL:
        return HostProgramUnusable(
            f"{name} was deployed by zorac-deploy {version.version}, which is newer than this one. "
            f"It answered: {found}. Upgrade zorac-deploy on this machine.",
            newer=True,
        )
    return HostProgramUnusable(
        f"the host program of {name} gave an unexpected answer: {found}. "
        "Deploy the host again to replace it: zorac-deploy up, and the same host options."
    )
