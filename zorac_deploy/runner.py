"""Run a playbook with ansible-runner, which only this module uses: yield its events, return a frozen result."""

import contextlib
import difflib
import json
import os
import shlex
import signal
import socket
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from zorac_deploy import content, inventory, launcher, scratch
from zorac_deploy.connection import Connection
from zorac_deploy.errors import DeploymentFailed, HostUnreachable, Interrupted, refused

# The variables of ansible-runner's own callback plugin. ansible-runner gets nothing else of the environment.
_FOR_EVENTS = (
    "ANSIBLE_CALLBACK_PLUGINS",
    "ANSIBLE_STDOUT_CALLBACK",
    "AWX_ISOLATED_DATA_DIR",
    "RUNNER_OMIT_EVENTS",
    "RUNNER_ONLY_FAILED_EVENTS",
)
# Variables of the user's environment that would change the plugin's events.
_NOT_FOR_EVENTS = {"AD_HOC_COMMAND_ID", "JOB_ID", "ORIGINAL_STDOUT_CALLBACK", "PROJECT_UPDATE_ID"}


@dataclass(frozen=True)
class Step:
    """A task that began or ended.

    Attributes:
        role: Its role; empty for none.
        task: Its name.
        outcome: ``started``, ``waiting``, ``ok``, ``changed``, ``skipped`` or ``failed``.
        diff: The changes of a file, as Ansible prints them; empty for none.
        facts: The facts that it set, by name.
        note: The progress that it waits for; empty if unknown.
    """

    role: str
    task: str
    outcome: str
    diff: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Result:
    """The result of a playbook.

    Attributes:
        changed: The tasks that changed something, as ``role: task``.
        seconds: How long it took.
        log: The file with Ansible's output; None if no role had to run.
    """

    changed: tuple[str, ...]
    seconds: float
    log: Path | None

    def summary(self) -> str:
        """How much was changed, as text."""
        number = len(self.changed)
        return f"{number} change{'s' * (number != 1)}" if number else "nothing changed"


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
        check: Run in check mode.
        variables: The command's own variables, such as whether to purge; never a profile's or a host's.
        on_step: Called when a task begins and when it ends.

    Raises:
        Refused: A role's preflight refused.
        HostUnreachable: The connection was lost.
        DeploymentFailed: A task failed.
        Interrupted: Ctrl-C.
    """
    from ansible_runner import interface  # here: the import takes 0.1 s

    started = time.monotonic()
    options = ["--diff", *(["--check"] if check else []), "--extra-vars", inventory.as_data(variables or {})]
    if connection.sudo_password is not None:
        options += ["--become-password-file", "-"]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8", errors="replace", buffering=1) as output, scratch.folder() as folder:
        events = _Events(on_step, output)
        run = interface.init_runner(
            private_data_dir=str(folder),
            playbook=str(content.playbook(verb)),
            inventory=[str(source) for source in sources],
            limit=connection.target.name,
            cmdline=shlex.join(options),
            # Only ansible-runner's own plugin, whatever the environment says.
            envvars={"ANSIBLE_CALLBACK_PLUGINS": "", "AWX_LIB_DIRECTORY": ""},
            suppress_env_files=True,
            quiet=True,
            event_handler=events.hear,
            cancel_callback=lambda: False,  # otherwise ansible-runner handles SIGTERM and SIGINT itself
        )
        order = {
            "command": [str(Path(sysconfig.get_path("scripts")) / "ansible-playbook"), *run.config.command[1:]],
            "password": connection.sudo_password or "",
        }
        run.config.env = {name: run.config.env[name] for name in _FOR_EVENTS}
        run.config.command = [sys.executable, "-I", "-S", launcher.__file__, str(folder)]
        run.config.suppress_output_file = True
        order["environment"] = _environment(connection, folder) | run.config.env
        try:
            with _offered(folder / launcher.SOCKET, json.dumps(order).encode()):
                run.run()
        except KeyboardInterrupt:
            raise Interrupted(_interrupted(connection)) from None
        except _Unheard as unheard:
            raise unheard.fault from None
        finally:
            _end(folder / launcher.PID)
    if run.rc != 0:
        raise events.fault(connection, run.rc, log)
    return Result(tuple(events.changed), time.monotonic() - started, log)


@contextlib.contextmanager
def _offered(path: Path, order: bytes) -> Iterator[None]:
    """Offer the launcher its command. After the context, nothing more can start."""

    def tell() -> None:
        with contextlib.suppress(OSError):
            taker, _ = listener.accept()
            with taker:
                taker.sendall(order)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        threading.Thread(target=tell, daemon=True).start()
        try:
            yield
        finally:
            path.unlink()


def _end(pid: Path) -> None:
    """End the launcher if it still runs, and so ansible-playbook. It writes its pid before it can get the command."""
    if not pid.exists() or not (number := pid.read_text()):
        return
    with contextlib.suppress(ChildProcessError):  # ansible-runner has reaped it
        if os.waitpid(int(number), os.WNOHANG)[0] == 0:
            os.kill(int(number), signal.SIGTERM)
            os.waitpid(int(number), 0)


def _interrupted(connection: Connection) -> str:
    name = connection.target.name
    return f"Interrupted. {name} finishes the activation in progress; re-run the command to continue."


def _environment(connection: Connection, folder: Path) -> dict[str, str]:
    """Ansible's environment for this host, beside its configuration file."""
    inherited = {name: value for name, value in inventory.environment().items() if name not in _NOT_FOR_EVENTS}
    return inherited | {
        "ANSIBLE_LOCAL_TEMP": str(folder),  # files on their way to the host, including tokens
        "ANSIBLE_SSH_ARGS": shlex.join(connection.ssh_options),
        "ANSIBLE_SSH_CONTROL_PATH": str(connection.control_path),
        "MAX_EVENT_RES": str(sys.maxsize),  # the plugin drops longer events
    }


class _Unheard(Exception):
    """An OSError of ours during an event. ansible-runner would ignore the OSError itself and continue."""

    def __init__(self, fault: OSError) -> None:
        super().__init__(str(fault))
        self.fault = fault


class _Events:
    """Converts ansible-runner's events into steps, writes the log, and stores what the result needs."""

    def __init__(self, on_step: Callable[[Step], None], log: TextIO | None = None) -> None:
        self.changed: list[str] = []
        self._last = ""
        self._failure: tuple[str, Mapping[str, Any]] | None = None
        self._unreachable = ""
        self._on_step = on_step
        self._log = log

    def hear(self, event: Mapping[str, Any]) -> bool:
        try:
            if self._log and (text := event.get("stdout")):
                self._log.write(text.replace("\r\n", "\n") + "\n")
            self.take(event)
        except OSError as fault:
            raise _Unheard(fault) from None
        return False  # ansible-runner need not store a copy

    def take(self, event: Mapping[str, Any]) -> None:
        data = event.get("event_data", {})
        step, result = (data.get("role", ""), data.get("task", "")), data.get("res") or {}
        match event["event"]:
            case "playbook_on_task_start":
                self._last = _named(step)
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
                self._failure = (_named(step), result)
                self._on_step(Step(*step, "failed", facts=result.get("ansible_facts") or {}))
            case "runner_on_unreachable":
                self._unreachable = _message(result)

    def fault(self, connection: Connection, code: int | None, log: Path) -> Exception:
        """The error of this run."""
        host = connection.target.name
        if self._failure:
            task, result = self._failure
            items = [item for item in result.get("results", ()) if item.get("failed")]
            if refusal := refused(items[0] if items else result):
                return refusal
            return DeploymentFailed(f"{task} failed on {host}:\n{_message(result)}\nAnsible's output: {log}")
        if self._unreachable:
            return HostUnreachable(
                f"the connection to {host} was lost: {self._unreachable}. Re-run the command to continue."
            )
        match code:
            case None:
                how = "was killed together with the process that started it"
            case _ if code > 128 and code - 128 in signal.valid_signals():
                how = f"was ended by signal {code - 128}"
            case _:
                how = f"ended with exit code {code}"
        where = f"in the task {self._last}" if self._last else "before its first task"
        return DeploymentFailed(
            f"ansible-playbook {how} {where} on {host}. Re-run the command to continue. Ansible's output: {log}"
        )


def _named(step: tuple[str, str]) -> str:
    return ": ".join(text for text in step if text)


def _note(result: Mapping[str, Any]) -> str:
    """The progress of a program that a task polls: ``note`` in a line of JSON."""
    try:
        answer = json.loads(result.get("stdout", ""))
    except ValueError:
        return ""
    return str(answer.get("note", "")) if isinstance(answer, dict) else ""


def _message(result: Mapping[str, Any]) -> str:
    for item in result.get("results", ()):
        if item.get("failed"):
            return _message(item)
    parts = [str(result.get(key, "")).strip() for key in ("msg", "stderr", "module_stderr")]
    return "\n".join(part for part in parts if part)


def _diff(result: Mapping[str, Any]) -> str:
    """The changes of files as a unified diff; empty for a task with secrets."""
    diffs = result.get("diff") or []
    lines: list[str] = []
    for diff in diffs if isinstance(diffs, list) else [diffs]:
        before, after = diff.get("before"), diff.get("after")
        if isinstance(before, str) and isinstance(after, str):
            headers = (str(diff.get("before_header") or "absent"), str(diff.get("after_header") or "present"))
            lines += difflib.unified_diff(before.splitlines(), after.splitlines(), *headers, lineterm="")
    return "\n".join(lines)
