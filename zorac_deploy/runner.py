"""Run a playbook. The only module that knows ansible-runner: events go out as they come, a frozen result comes back."""

import difflib
import json
import os
import sysconfig
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_runner

from zorac_deploy import content
from zorac_deploy.connection import Connection
from zorac_deploy.errors import DeploymentFailed, HostUnreachable, Interrupted, Refused, refused


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
    with tempfile.TemporaryDirectory(prefix="zorac-deploy-") as scratch:
        private = Path(scratch)
        try:
            run = ansible_runner.run(
                private_data_dir=str(private),
                playbook=str(content.playbook(verb)),
                inventory=[str(source) for source in sources],
                limit=connection.target.name,
                cmdline="--check --diff" if check else "--diff",
                extravars=dict(variables or {}),
                envvars=_environment(connection),
                event_handler=events.take,
                quiet=True,
                settings={"suppress_env_files": True},
            )
        except KeyboardInterrupt:
            raise Interrupted(_interrupted(connection)) from None
        finally:
            _keep_log(private, log)
    if run.status == "canceled":
        raise Interrupted(_interrupted(connection))
    if run.rc != 0:
        raise events.fault(connection, log)
    return Result(tuple(events.changed), time.monotonic() - started, log)


def _interrupted(connection: Connection) -> str:
    name = connection.target.name
    return f"stopped by you. {name} is where it was stopped, and finishes what it activates. Type the same to go on."


def _environment(connection: Connection) -> dict[str, str]:
    """What Ansible is told for this host, beside its configuration file."""
    environment = {
        # ansible-runner looks for ansible-playbook on PATH; a virtual environment need not be on it.
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}",
        "ANSIBLE_CONFIG": str(content.ansible_config()),
        "ANSIBLE_SSH_ARGS": " ".join(connection.ssh_options),
        "ANSIBLE_SSH_CONTROL_PATH": f"{connection.control}/%%C",
    }
    if connection.sudo_password is not None:
        environment["ANSIBLE_BECOME_PASS"] = connection.sudo_password
    return environment


def _keep_log(private: Path, log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    output = sorted(private.glob("artifacts/*/stdout"))
    log.write_text(output[-1].read_text(errors="replace") if output else "")


class _Events:
    """Turns ansible-runner's events into steps, and keeps what the result needs."""

    def __init__(self, on_step: Callable[[Step], None]) -> None:
        self.changed: list[str] = []
        self._failure: tuple[str, Mapping[str, Any]] | None = None
        self._unreachable = ""
        self._on_step = on_step

    def take(self, event: Mapping[str, Any]) -> bool:
        kind, data = event["event"], event.get("event_data", {})
        step = (data.get("role", ""), data.get("task", ""))
        result = data.get("res") or {}
        match kind:
            case "playbook_on_task_start" | "playbook_on_handler_task_start":
                self._on_step(Step(*step, "started"))
            case "runner_on_ok":
                outcome = "changed" if result.get("changed") else "ok"
                if outcome == "changed":
                    self.changed.append(": ".join(step))
                self._on_step(Step(*step, outcome, _diff(result), result.get("ansible_facts") or {}))
            case "runner_retry":
                self._on_step(Step(*step, "waiting", note=_note(result)))
            case "runner_on_skipped":
                self._on_step(Step(*step, "skipped"))
            case "runner_on_failed" if not data.get("ignore_errors"):
                self._failure = (": ".join(step), result)
                self._on_step(Step(*step, "failed", facts=result.get("ansible_facts") or {}))
            case "runner_on_unreachable":
                self._unreachable = _message(result)
        return True  # ansible-runner keeps its own copy

    def fault(self, connection: Connection, log: Path) -> Exception:
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
        return DeploymentFailed(f"Ansible failed before it did anything on {host}. All that it said is in {log}")


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
