"""What is deployed on a host, its generations, as the host program reports them."""

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

# The engines' units; a host has one of them.
UNITS = ("vllm.service", "llama-cpp.service")
KEY_FILE = "/etc/zorac-deploy/api-key"


@dataclass(frozen=True)
class Generation:
    """One generation of a host.

    Attributes:
        number: Its number.
        created: When it was created, in seconds of the Unix epoch.
        current: Whether the host serves it.
        about: What it serves, and its versions.
        state: ``proved`` (verified), ``failed``, or empty if it was never activated.
        at: When it got this state, in seconds of the Unix epoch; None without one.
        by: Who requested it.
        reason: Why it failed; empty if it did not.
        cause: An id of the reason, for programs; empty for none.
        logged: What its engine logged at its last start, see `Deployment`.
        order: The position among all activations: the higher, the later; 0 is never.
        seconds: The times of its last activation: ``stop``, ``memory`` (its release), ``start``, ``proof`` (the
            verification), and ``silent`` (the downtime).
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
        """What differs in `other`, as (this, other); the plan's numbers are compared one by one."""
        own, others = _flat(self.about), _flat(other.about) if other else {}
        return {name: (others.get(name), own.get(name)) for name in own if own.get(name) != others.get(name)}


@dataclass(frozen=True)
class Deployment:
    """What a host serves.

    Attributes:
        host: The host's name in the inventory.
        generation: The current generation.
        profile: The profile that it was deployed with.
        engine: The name of the engine's lock.
        model: The model's name for clients.
        model_path: The model's directory on the host.
        max_model_len: The longest conversation in tokens; None is the model's limit.
        listen: The address that the server listens on.
        port: Its port.
        state: systemd's state of the unit: active, activating, failed, inactive.
        since: When the unit became active, in seconds of the Unix epoch; None if it is not.
        restarts: How often systemd has restarted the engine since then.
        enabled: Whether it starts at boot.
        healthy: Whether the health check answers 200.
        activating: The activation in progress, and its user; empty for none.
        watchdog: The watchdog's message; empty if there is none.
        plan: The memory plan, and its predictions.
        logged: What the engine logged at its last start: its memory by parts, its kernels.
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
        """The server's address on the host; loopback if it listens on 0.0.0.0 or ::."""
        return f"http://{bracketed(self.listen)}:{self.port}"

    @property
    def not_serving(self) -> str:
        """Why no request is answered, and what to type; empty if the engine serves."""
        if self.healthy:
            return ""
        if self.state == "activating":
            again = " again after it ended" if self.restarts else ""
            return f"the engine on {self.host} is starting{again}. Wait for it: zorac-deploy logs {self.host} --follow"
        states = {"active": "runs, but does not answer", "failed": "has failed", "inactive": "is stopped"}
        state = states.get(self.state, f"is {self.state}")
        return f"the engine on {self.host} {state}. Type: zorac-deploy doctor {self.host}"

    def summary(self) -> dict[str, object]:
        """What `status --json` prints."""
        return asdict(self)


@dataclass(frozen=True)
class Activation:
    """The result of a change of generations.

    Attributes:
        generation: The wanted generation.
        changed: False if it ran already.
        seconds: The times, see `Generation`.
    """

    generation: int
    changed: bool
    seconds: Seconds


def read(connection: Connection) -> Deployment:
    """Read what is deployed on the connection's host.

    Raises:
        NotDeployed: Nothing is deployed.
    """
    return from_status(connection.target.name, ask(connection, Status, "status"))


def from_status(name: str, status: Status) -> Deployment:
    """The deployment in `status`, the answer of the host `name`.

    Raises:
        NotDeployed: Nothing is deployed.
    """
    current = next((generation for generation in status.generations if generation.number == status.current), None)
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
        NotDeployed: There are no generations.
    """
    status = ask(connection, Status, "status")
    return [_generation(generation, generation.number == status.current) for generation in status.generations]


def generation(connection: Connection, number: int) -> Generation:
    """The generation `number` of the connection's host."""
    return next(generation for generation in generations(connection) if generation.number == number)


def _generation(answer: host_program.Generation, current: bool) -> Generation:
    outcome = answer.outcome
    return Generation(
        number=answer.number,
        created=answer.created,
        current=current,
        about=answer.model_dump(exclude={"number", "created", "digest", "outcome"}),
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
    """Wait until no activation is in progress on the host: a killed run may have left one."""
    done = connection.run(host_program.PATH, "wait")
    if done.returncode not in (0, 1, 127):
        connection.read("true")  # raises if the connection is broken


def activate(connection: Connection, number: int, by: str) -> Activation:
    """Activate and verify the generation `number`.

    Raises:
        Refused: It does not exist, or it failed and the host rolled back.
        DeploymentFailed: It failed, and so did the rollback.
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
    """Remove generations that are no longer needed; return them, with the paths and bytes freed."""
    return ask(connection, Collected, "collect", "--keep", str(keep), *(["--check"] if check else []))


def api_key(connection: Connection) -> str:
    """The API key of the endpoint of the connection's host."""
    return connection.read("cat", KEY_FILE).strip()


def endpoint(connection: Connection, deployment: Deployment, port: int) -> Endpoint:
    """The deployment's endpoint, as reached through `port` of this machine."""
    from zorac_deploy.chat import Endpoint  # here: most commands do not need it

    key = api_key(connection)
    url = deployment.url if connection.target.local else f"http://127.0.0.1:{port}"
    return Endpoint(url, deployment.model, key)


def _why_not(status: Status) -> str:
    if status.pending:
        return f" Generation {status.pending.target} is being activated."
    failed = [generation for generation in status.generations if generation.outcome.state == "failed"]
    return f" Generation {failed[-1].number} failed: {failed[-1].outcome.reason}." if failed else ""


def _watchdog(watchdog: host_program.Watchdog) -> str:
    if watchdog.gave_up:
        return f"gave up: {watchdog.gave_up}"
    if watchdog.doubt:
        return f"last check failed: {watchdog.doubt}"
    return f"restarted the engine {len(watchdog.helped)} times" if watchdog.helped else ""


def _flat(manifest: Mapping[str, Any]) -> dict[str, object]:
    """The comparable values: names and numbers. Lists and nested values are derived from them."""
    everything = {**manifest, **manifest.get("plan", {})}
    return {name: value for name, value in everything.items() if not isinstance(value, (list, dict))}
