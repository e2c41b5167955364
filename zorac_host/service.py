"""The engine's unit, in systemd and for the driver."""

import subprocess
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from zorac_host import Fault, port, store
from zorac_host.refusal import Refusal

_MEMORY_LIMIT_SECONDS = 60.0
_TICK_SECONDS = 0.2
# A request may be accepted but not queued yet, or the end of a reply not sent yet.
_QUIET_TICKS = 3
_WANTS = "multi-user.target.wants"
_PROPERTIES = "ActiveState,SubState,NRestarts,Result,MainPID,ControlGroup,InvocationID,Job"


class Failure(Fault):
    """The engine failed. `str(failure)` says how."""


def systemctl(*arguments: str) -> bool:
    """Run systemctl; return whether it succeeded."""
    return subprocess.run(["systemctl", "--quiet", *arguments], capture_output=True, check=False).returncode == 0


def shown(unit: str) -> dict[str, str]:
    """The unit's properties in systemd."""
    done = subprocess.run(
        ["systemctl", "show", unit, f"--property={_PROPERTIES}"], capture_output=True, text=True, check=False
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def details(unit: str) -> dict[str, object]:
    """The unit's state, its start, its restarts, and whether it starts at boot."""
    names = "--property=ActiveState,ActiveEnterTimestamp,NRestarts"
    done = subprocess.run(
        ["systemctl", "show", unit, "--timestamp=unix", names], capture_output=True, text=True, check=False
    )
    properties = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    since = properties.get("ActiveEnterTimestamp", "").removeprefix("@")
    return {
        "state": properties.get("ActiveState", "unknown"),
        "since": int(since) if since.isdecimal() and properties.get("ActiveState") == "active" else None,
        "restarts": int(properties.get("NRestarts") or 0),
        "enabled": (store.UNITS / _WANTS / unit).is_symlink(),
    }


def started(unit: str) -> tuple[float, float] | None:
    """When the unit became active: by the clock, and by the kernel's clock since boot. None if it is not active."""
    names = "--property=ActiveState,ActiveEnterTimestamp,ActiveEnterTimestampMonotonic"
    done = subprocess.run(
        ["systemctl", "show", unit, "--timestamp=unix", names], capture_output=True, text=True, check=False
    )
    properties = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if properties.get("ActiveState") != "active":
        return None
    clock, count = properties["ActiveEnterTimestamp"].removeprefix("@"), properties["ActiveEnterTimestampMonotonic"]
    return float(clock), int(count) / 1e6


def running(unit: str) -> int | None:
    """The number of the generation that the unit's process was started from; None if it does not run."""
    pid = shown(unit).get("MainPID", "0")
    try:
        variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return None
    places = [
        variable.partition(b"=")[2].decode()
        for variable in variables
        if variable.startswith(b"ZORAC_DEPLOY_GENERATION=")
    ]
    return int(Path(places[0]).name) if places and Path(places[0]).name.isdecimal() else None


def settled(target: store.Generation) -> bool:
    """Whether `target` is the current generation, verified, and running."""
    current = store.current()
    return (
        current is not None
        and current.number == target.number
        and store.outcome(target.number).get("state") == "proved"
        and shown(target.unit).get("ActiveState") == "active"
        and running(target.unit) == target.number
        and in_place(target)
    )


def in_place(target: store.Generation) -> bool:
    """Whether systemd has loaded the unit of `target` unchanged."""
    try:
        return (store.UNITS / target.unit).read_bytes() == (target.folder / target.unit).read_bytes()
    except OSError:
        return False


def processes(unit: str) -> set[int]:
    """All processes of the unit."""
    group = shown(unit).get("ControlGroup", "")
    pids: set[int] = set()
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"):
        try:
            pids.update(int(pid) for pid in Path(f"{root}{group}/cgroup.procs").read_text().split() if group)
        except OSError:
            continue
    return pids


def stop(unit: str, idle: Callable[[], bool]) -> None:
    """Stop the unit, with all its processes.

    A serving engine refuses new requests and finishes the current ones within its unit's limit. Then it is killed: its
    own shutdown takes seconds and has no use. A loading engine has no requests, and is killed at once: vLLM ignores the
    signal until it serves.

    Args:
        unit: The unit.
        idle: Whether its engine has no requests.
    """
    if shown(unit).get("ActiveState") == "activating":
        systemctl("kill", "--signal=KILL", unit)
    systemctl("stop", "--no-block", unit)
    quiet = 0
    while shown(unit).get("ActiveState") not in ("inactive", "failed"):
        time.sleep(_TICK_SECONDS)
        quiet = quiet + 1 if idle() else 0
        if quiet == _QUIET_TICKS:
            systemctl("kill", "--signal=KILL", unit)
    systemctl("reset-failed", unit)
    left = processes(unit)
    if left:
        raise Failure(f"{unit} is stopped, but its processes {', '.join(map(str, sorted(left)))} still run")


def start(unit: str) -> None:
    """Start the unit without waiting, after resetting earlier failures."""
    systemctl("reset-failed", unit)
    systemctl("start", "--no-block", unit)


def wait_until_serving(unit: str, limit: float, patient: bool) -> None:
    """Wait until the unit is started, which means that the engine answers.

    Args:
        unit: The unit.
        limit: The limit in seconds.
        patient: Whether systemd may restart it, as often as the unit allows.

    Raises:
        Failure: The engine ended or took too long.
    """
    deadline = time.monotonic() + limit
    while time.monotonic() < deadline:
        state = shown(unit)
        if state.get("ActiveState") == "active":
            return
        tried = int(state.get("NRestarts") or 0) > 0 or state.get("SubState") == "auto-restart"
        # A unit that waits for another is inactive and has a job.
        ended = state.get("ActiveState") in ("failed", "inactive") and not state.get("Job")
        if ended or (tried and not patient):
            raise Failure(f"the engine ended before it answered ({state.get('Result', 'no result')})")
        time.sleep(_TICK_SECONDS)
    raise Failure(f"the engine did not answer within {limit:.0f} s")


def wait_for_memory(former: set[int]) -> None:
    """Wait until the processes `former` hold no GPU memory.

    Raises:
        Failure: They still hold it after a minute.
    """
    deadline = time.monotonic() + _MEMORY_LIMIT_SECONDS
    while remaining := _holders() & former:
        if time.monotonic() > deadline:
            raise Failure(f"the old engine has stopped, but its processes {sorted(remaining)} still use GPU memory")
        time.sleep(_TICK_SECONDS)


def _holders() -> set[int]:
    """The processes that use GPU memory; none without a driver."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return set()
    return {int(line) for line in done.stdout.split() if line.isdecimal()}


def require_free_port(manifest: Mapping[str, object], units: Collection[str] = ()) -> None:
    """Require that the engine of a generation can listen, after `units` are stopped.

    Raises:
        Failure: The address does not exist, or another process listens there.
    """
    try:
        port.require(str(manifest["host"]), int(str(manifest["port"])), units)
    except Refusal as refusal:
        raise Failure(str(refusal)) from None


def stay_if_host_stops() -> None:
    """Wait for the end if the whole host shuts down: the engine's end is then not a failure."""
    done = subprocess.run(["systemctl", "is-system-running"], capture_output=True, text=True, check=False)
    if done.stdout.strip() in ("stopping", "offline"):
        time.sleep(3600)


def enable(unit: str, enabled: bool) -> None:
    """Enable or disable the unit at boot."""
    link = store.UNITS / _WANTS / unit
    if enabled and not link.is_symlink():
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(store.UNITS / unit)
    elif not enabled:
        link.unlink(missing_ok=True)


def cursor() -> str:
    """The current end of the journal; empty if there is none."""
    done = subprocess.run(
        ["journalctl", "--lines=0", "--show-cursor", "--quiet"], capture_output=True, text=True, check=False
    )
    return done.stdout.rpartition("cursor: ")[2].strip()


def journal(unit: str, since: str) -> str:
    """The last lines of the unit's journal since the cursor `since`, by default since the boot; empty if unreadable."""
    place = [f"--after-cursor={since}"] if since else ["--boot"]
    try:
        done = subprocess.run(
            ["journalctl", f"--unit={unit}", *place, "--output=cat", "--no-pager", "--lines=2000", "--quiet"],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def decisive(journal: str) -> list[str]:
    """The lines that explain a failure: the last few errors, without duplicates."""
    alarming = ("error", "exception", "killed", "fatal", "no space", "traceback")
    harmless = ("INFO", "WARNING", "For further information", "Traceback (most recent", "Failed with result", " raise ")
    lines = [
        line.strip()
        for line in journal.splitlines()
        if any(word in line.lower() for word in alarming) and not any(word in line for word in harmless)
    ]
    return list(dict.fromkeys(lines))[-5:]


def load(command: Sequence[str]) -> None:
    """Run a command that only warms caches; its result is ignored."""
    try:
        subprocess.run(["nice", "-n", "19", *command], capture_output=True, check=False, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return
