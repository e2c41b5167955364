"""What is deployed on a host: its generations, as the program on the host itself tells of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from zorac_deploy import host_program
from zorac_deploy.connection import Connection, bracketed
from zorac_deploy.errors import DeploymentFailed, NotDeployed, Refused
from zorac_deploy.host_program import Activated, Collected, Status, ask

if TYPE_CHECKING:
    from zorac_deploy.chat import Endpoint

Seconds: TypeAlias = Mapping[str, float]

# The units of the engines, of which a host has one.
UNITS = ("vllm.service", "llama-cpp.service")
KEY_FILE = "/etc/zorac-deploy/api-key"


@dataclass(frozen=True)
class Generation:
    """One generation of a host.

    Attributes:
        number: Its number.
        created: When it was made, in seconds of the Unix epoch.
        current: Whether it is the one that the host serves.
        about: What it serves and with what.
        state: ``proved``, ``failed``, or empty if it was never activated.
        at: When it became so, in seconds of the Unix epoch; None if it never did.
        by: Who wanted it.
        reason: Why it failed; empty if it did not.
        cause: An id of the reason, where a program may want one; empty for none.
        logged: What its engine logged when it was last started, see `Deployment`.
        order: Counts all activations: the higher, the later; 0 is never.
        seconds: What its last activation took: ``stop``, ``memory`` (its release), ``start``, ``proof``, and
            ``silent``, the whole time in which nothing answered.
    """

    number: int
    created: int
    current: bool
    about: Mapping[str, Any]
    state: str
    at: int | None
    by: str
    reason: str
    cause: str
    logged: Mapping[str, Any]
    order: int
    seconds: Seconds

    def difference(self, other: Generation | None) -> dict[str, tuple[object, object]]:
        """What `other` has else, as (there, here); the plan's numbers count one by one."""
        here, there = _flat(self.about), _flat(other.about) if other else {}
        return {name: (there.get(name), here.get(name)) for name in here if here.get(name) != there.get(name)}


@dataclass(frozen=True)
class Deployment:
    """What a host serves.

    Attributes:
        host: The host's name in the inventory.
        generation: The number of the current generation.
        profile: The profile that it was deployed with.
        engine: The engine and its version, the name of its lock.
        model: The name by which clients ask for the model.
        model_path: The model's folder on the host.
        max_model_len: The longest conversation in tokens; None is the model's own limit.
        listen: The address that the server listens on.
        port: Its port.
        state: systemd's word for the unit: active, activating, failed, inactive.
        since: When the unit became active, in seconds of the Unix epoch; None if it is not.
        restarts: How often systemd has restarted the engine since then.
        enabled: Whether it starts with the host.
        healthy: Whether the health check answers 200.
        activating: The generation that is being activated now, and for whom; empty if none is.
        watchdog: What the watchdog has to say; empty if all is well.
        plan: The numbers that the settings come from, and what they let expect.
        logged: What the engine itself logged when it was last started: its memory by parts, its kernels.
    """

    host: str
    generation: int
    profile: str
    engine: str
    model: str
    model_path: str
    max_model_len: int | None
    listen: str
    port: int
    state: str
    since: int | None
    restarts: int
    enabled: bool
    healthy: bool
    activating: str
    watchdog: str
    plan: Mapping[str, Any]
    logged: Mapping[str, Any]

    @property
    def url(self) -> str:
        """The server's address on the host, which takes a connection to 0.0.0.0 or :: for one to its loopback."""
        return f"http://{bracketed(self.listen)}:{self.port}"

    def summary(self) -> dict[str, object]:
        """What `status --json` prints."""
        return asdict(self)


@dataclass(frozen=True)
class Activation:
    """How a change of generations ended.

    Attributes:
        generation: The generation that was wanted.
        changed: Whether anything was done; not if it ran already.
        seconds: What took how long, see `Generation`.
    """

    generation: int
    changed: bool
    seconds: Seconds


def read(connection: Connection) -> Deployment:
    """What is deployed on the connection's host.

    Raises:
        NotDeployed: Nothing is.
    """
    return told(connection.target.name, ask(connection, Status, "status"))


def told(name: str, status: Status) -> Deployment:
    """What is deployed on the host `name`, which said `status`.

    Raises:
        NotDeployed: Nothing is.
    """
    current = next((each for each in status.generations if each.number == status.current), None)
    if current is None or status.unit is None:
        raise NotDeployed(
            f"nothing is deployed on {name}.{_why_not(status)} "
            "Deploy it with: zorac-deploy up, and the same host options."
        )
    return Deployment(
        host=name,
        generation=current.number,
        profile=current.profile,
        engine=current.engine,
        model=current.model,
        model_path=current.model_path,
        max_model_len=current.max_model_len,
        listen=current.host,
        port=current.port,
        **status.unit.model_dump(),
        healthy=not status.health,
        activating=f"generation {status.pending.target}, for {status.pending.by}" if status.pending else "",
        watchdog=_watchdog(status.watchdog),
        plan=current.plan,
        logged=current.outcome.engine,
    )


def generations(connection: Connection) -> list[Generation]:
    """The generations of the connection's host, the oldest first.

    Raises:
        NotDeployed: There are none.
    """
    status = ask(connection, Status, "status")
    return [_generation(each, each.number == status.current) for each in status.generations]


def generation(connection: Connection, number: int) -> Generation:
    """The generation `number` of the connection's host."""
    return next(each for each in generations(connection) if each.number == number)


def _generation(told: host_program.Generation, current: bool) -> Generation:
    outcome = told.outcome
    return Generation(
        number=told.number,
        created=told.created,
        current=current,
        about=told.model_dump(exclude={"number", "created", "digest", "outcome"}),
        state=outcome.state,
        at=outcome.at,
        by=outcome.by,
        reason=outcome.reason,
        cause=outcome.cause,
        logged=outcome.engine,
        order=outcome.order,
        seconds=outcome.seconds,
    )


def settle(connection: Connection) -> None:
    """Wait until no activation is under way on the host: an earlier run may have left it to itself."""
    done = connection.run(host_program.PATH, "wait")
    if done.returncode not in (0, 1, 127):
        connection.read("true")  # says what is wrong with the connection


def activate(connection: Connection, number: int, by: str) -> Activation:
    """Have the generation `number` run, proved.

    Raises:
        Refused: There is no such generation, or it failed and the one before serves again.
        DeploymentFailed: It failed, and so did the one before.
    """
    done = ask(connection, Activated, "activate", str(number), "--by", by)
    if done.state != "proved":
        lines = "".join(f"\n  {line}" for line in done.lines)
        failed = f"generation {number} failed on {connection.target.name}: {done.reason}."
        if done.back_failure or not done.previous:
            raise DeploymentFailed(f"{failed} {done.back_failure} The endpoint is down.{lines}")
        raise Refused(f"{failed} Rolled back to generation {done.previous}, which was verified.{lines}", "rolled-back")
    return Activation(number, done.changed, done.seconds)


def collect(connection: Connection, keep: int, check: bool) -> Collected:
    """Remove generations that are of no use any more, and say which, with the paths and bytes that went with them."""
    return ask(connection, Collected, "collect", "--keep", str(keep), *(["--check"] if check else []))


def api_key(connection: Connection) -> str:
    """The key that the endpoint of the connection's host asks for."""
    return connection.read("cat", KEY_FILE).strip()


def endpoint(connection: Connection, deployment: Deployment, port: int) -> Endpoint:
    """The deployment as a client reaches it through `port` of this machine."""
    from zorac_deploy.chat import Endpoint  # here, for most commands never talk to it

    key = api_key(connection)
    url = deployment.url if connection.target.local else f"http://127.0.0.1:{port}"
    return Endpoint(url, deployment.model, key)


def _why_not(status: Status) -> str:
    if status.pending:
        return f" Generation {status.pending.target} is being activated."
    failed = [each for each in status.generations if each.outcome.state == "failed"]
    return f" Generation {failed[-1].number} failed: {failed[-1].outcome.reason}." if failed else ""


def _watchdog(kept: host_program.Watchdog) -> str:
    if kept.gave_up:
        return f"gave up: {kept.gave_up}"
    if kept.doubt:
        return f"last check failed: {kept.doubt}"
    return f"restarted the engine {len(kept.helped)} times" if kept.helped else ""


def _flat(about: Mapping[str, Any]) -> dict[str, object]:
    """What a person compares: names and numbers. Lists and nested ones follow from them."""
    everything = {**about, **about.get("plan", {})}
    return {name: value for name, value in everything.items() if not isinstance(value, (list, dict))}
