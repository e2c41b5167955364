"""Run a playbook: events go out as they come, a frozen result comes back.

ansible-runner is not used: it writes the whole environment, with passwords and tokens, to the disk.
"""

import contextlib
import difflib
import io
import json
import os
import select
import shlex
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zorac_deploy import content, inventory, scratch
from zorac_deploy.connection import Connection
from zorac_deploy.errors import DeploymentFailed, HostUnreachable, Interrupted, Refused, refused

_OURS = content.root() / "playbooks"
# How long ansible-playbook has to end what it began, when it is told to.
_END_SECONDS = 10


@dataclass(frozen=True)
class Step:
    """A task that began or ended.

    Attributes:
        role: The role it belongs to; empty for none.
        task: Its name.
        outcome: ``started``, ``waiting``, ``ok``, ``changed``, ``skipped`` or ``failed``.
        diff: What would change or changed in a file, as Ansible prints it; empty for none.
        facts: What it found out and left for later tasks, by name.
        note: How far that is which it waits for, in words; empty if nobody knows.
    """

    role: str
    task: str
    outcome: str
    diff: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Result:
    """What a playbook did.

    Attributes:
        changed: The tasks that changed something, as ``role: task``.
        seconds: How long it took.
        log: The file with Ansible's whole output.
    """

    changed: tuple[str, ...]
    seconds: float
    log: Path


def run(
    verb: str,
    sources: Sequence[Path],
    connection: Connection,
    log: Path,
    *,
    check: bool = False,
    variables: Mapping[str, object] | None = None,
    on_step: Callable[[Step], None] = lambda _: None,
) -> Result:
    """Run the playbook of `verb` against the connection's host.

    Args:
        verb: The name of a playbook.
        sources: The inventories, in order.
        connection: The host, and the SSH session to share.
        log: Where Ansible's output goes.
        check: Only find out what would change.
        variables: What the verb itself decides, such as whether to purge. Never what a profile or a host sets.
        on_step: Called for each task as it begins and ends.

    Raises:
        Refused: A role's preflight said no.
        HostUnreachable: The connection was lost.
        DeploymentFailed: A task failed.
        Interrupted: The person pressed Ctrl-C.
    """
    events = _Events(on_step)
    started = time.monotonic()
    command = [
        *(str(Path(sysconfig.get_path("scripts")) / "ansible-playbook"), str(content.playbook(verb))),
        *(word for source in sources for word in ("--inventory", str(source))),
        *("--limit", connection.target.name, "--diff", *(["--check"] if check else [])),
        *("--extra-vars", inventory.as_data(variables or {})),
        *(["--become-password-file", "-"] if connection.sudo_password is not None else []),
    ]
    log.parent.mkdir(parents=True, exist_ok=True)
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb", buffering=0) as pipe, log.open("wb") as output, scratch.folder() as folder:
        try:
            # A session of its own, so that Ctrl-C reaches us alone; and a folder where nobody leaves Python modules.
            process = subprocess.Popen(
                command,
                cwd=_OURS,
                env=_environment(connection, theirs, folder),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs,),
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin as answers:  # type: ignore[union-attr]
                answers.write((connection.sudo_password or "").encode())
            _follow(process, pipe, events)
        except KeyboardInterrupt:
            raise Interrupted(_interrupted(connection)) from None
        finally:
            _end(process)
    if process.returncode != 0:
        raise events.fault(connection, process.returncode, log)
    return Result(tuple(events.changed), time.monotonic() - started, log)


def _follow(process: subprocess.Popen[bytes], pipe: io.RawIOBase, events: "_Events") -> None:
    """Take the events as they come, until the process has ended."""
    begun = b""
    while True:
        if select.select([pipe], [], [], 1)[0]:
            data = pipe.read(2**16)
            if not data:
                break
            *lines, begun = (begun + data).split(b"\n")
            for line in lines:
                events.take(json.loads(line))
        elif process.poll() is not None:
            break  # what outlives an ansible-playbook that was killed keeps the pipe open
    process.wait()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and what it started, if it still runs."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _interrupted(connection: Connection) -> str:
    name = connection.target.name
    return f"stopped by you. {name} is where it was stopped, and finishes what it activates. Type the same to go on."


def _environment(connection: Connection, events: int, folder: Path) -> dict[str, str]:
    """What Ansible is told for this host, beside its configuration file."""
    return inventory.environment() | {
        "ANSIBLE_CALLBACKS_ENABLED": "zorac_events",
        "ANSIBLE_LOCAL_TEMP": str(folder),  # what it copies to the host goes through here, tokens among it
        "ANSIBLE_SSH_ARGS": shlex.join(connection.ssh_options),
        "ANSIBLE_SSH_CONTROL_PATH": str(connection.control_path),
        "ZORAC_DEPLOY_EVENTS": str(events),
    }


class _Events:
    """Turns the lines of the callback plugin into steps, and keeps what the result needs."""

    def __init__(self, on_step: Callable[[Step], None]) -> None:
        self.changed: list[str] = []
        self._last = ""
        self._failure: tuple[str, Mapping[str, Any]] | None = None
        self._unreachable = ""
        self._on_step = on_step

    def take(self, event: Mapping[str, Any]) -> None:
        kind, step, result = event["event"], (event["role"], event["task"]), event["result"]
        match kind:
            case "started":
                self._last = _named(step)
                self._on_step(Step(*step, kind))
            case "ok":
                outcome = "changed" if result.get("changed") else "ok"
                if outcome == "changed":
                    self.changed.append(": ".join(step))
                self._on_step(Step(*step, outcome, _diff(result), result.get("ansible_facts") or {}))
            case "waiting":
                self._on_step(Step(*step, kind, note=_note(result)))
            case "skipped":
                self._on_step(Step(*step, kind))
            case "failed":
                self._failure = (_named(step), result)
                self._on_step(Step(*step, kind, facts=result.get("ansible_facts") or {}))
            case "unreachable":
                self._unreachable = _message(result)

    def fault(self, connection: Connection, code: int, log: Path) -> Exception:
        """The error that this run amounts to."""
        host = connection.target.name
        if self._failure:
            task, result = self._failure
            if isinstance(refusal := result.get("refusal"), dict):
                return Refused(refusal["message"], refusal["id"])
            message = _message(result)
            failed = DeploymentFailed(f"{task} failed on {host}:\n{message}\nAll that Ansible said is in {log}")
            return refused(message) or failed
        if self._unreachable:
            return HostUnreachable(f"the connection to {host} was lost: {self._unreachable}. Type the same to go on.")
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        where = f"in the task {self._last}" if self._last else "before it did anything"
        return DeploymentFailed(
            f"ansible-playbook {how} {where} on {host}. To go on, run the same command again. "
            f"All that Ansible said is in {log}"
        )


def _named(step: tuple[str, str]) -> str:
    return ": ".join(word for word in step if word)


def _note(result: Mapping[str, Any]) -> str:
    """How far a program is that a task asks again and again, if it says so as ``note`` in a line of JSON."""
    try:
        said = json.loads(result.get("stdout", ""))
    except ValueError:
        return ""
    return str(said.get("note", "")) if isinstance(said, dict) else ""


def _message(result: Mapping[str, Any]) -> str:
    for item in result.get("results", ()):
        if item.get("failed"):
            return _message(item)
    parts = [str(result.get(key, "")).strip() for key in ("msg", "stderr", "module_stderr")]
    return "\n".join(part for part in parts if part)


def _diff(result: Mapping[str, Any]) -> str:
    """The changes of files as a unified diff; what a task keeps secret has none."""
    found = result.get("diff") or []
    lines: list[str] = []
    for diff in found if isinstance(found, list) else [found]:
        before, after = diff.get("before"), diff.get("after")
        if isinstance(before, str) and isinstance(after, str):
            headers = (str(diff.get("before_header") or "absent"), str(diff.get("after_header") or "present"))
            lines += difflib.unified_diff(before.splitlines(), after.splitlines(), *headers, lineterm="")
    return "\n".join(lines)
