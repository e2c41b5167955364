"""What `up` and `switch` share: compare, deploy, verify, report."""

from __future__ import annotations

import getpass
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from zorac_deploy import chat, convergence, deployment, growth, inputs, inventory, runner
from zorac_deploy.cli.common import Session, output, reached
from zorac_deploy.cli.progress import Progress
from zorac_deploy.cli.terminal import marked
from zorac_deploy.errors import SmokeFailed
from zorac_deploy.models import pins, source

if TYPE_CHECKING:
    from zorac_deploy.desired import Reply

_LOGS_KEPT = 50


@dataclass(frozen=True)
class Deployed:
    """The result of a run, what the host serves now, and its verification.

    Attributes:
        result: The changes.
        served: What the host serves now.
        smoke: The checks from this machine, as a client; None if no role ran.
        look: The host's state before the run; None if it was not compared.
        reply: The engine's reply to the host's own request, if no role ran.
    """

    result: runner.Result
    served: deployment.Deployment
    smoke: chat.Smoke | None
    look: convergence.Look | None = None
    reply: Reply | None = None

    @property
    def missed(self) -> bool:
        """Whether roles changed a host that the comparison found unchanged: a bug of the comparison."""
        return (
            self.look is not None and self.look.converged and self.result.log is not None and bool(self.result.changed)
        )

    def summary(self) -> dict[str, object]:
        """The object that `--json` prints."""
        return {
            "host": self.served.host,
            "changed": list(self.result.changed),
            "seconds": self.result.seconds,
            "log": str(self.result.log) if self.result.log else None,
            **_comparison(self.look),
            "deployment": self.served.summary(),
            "smoke": self.smoke.summary() if self.smoke else None,
            "reply": self.reply.model_dump() if self.reply else None,
        }

    def require(self) -> None:
        """Require that every check passed.

        Raises:
            SmokeFailed: A check failed.
        """
        if self.smoke and not self.smoke.passed:
            lines = [f"{check.name}: {check.found}" for check in self.smoke.checks if not check.passed]
            count = f"{len(lines)} of {len(self.smoke.checks)} smoke checks failed"
            message = f"deployed, but {count}:\n  " + "\n  ".join(lines)
            raise SmokeFailed(message, self.smoke.failed)


@dataclass(frozen=True)
class Changes:
    """What a run would change.

    Attributes:
        tasks: The tasks that would change something.
        diffs: The changes of files.
        log: The file with Ansible's output; None if no role had to run.
        look: The host's state; None if it was not compared.
    """

    tasks: tuple[str, ...]
    diffs: tuple[str, ...]
    log: Path | None
    look: convergence.Look | None = None

    def summary(self, host: str) -> dict[str, object]:
        """The object that `--json` prints."""
        return {
            "host": host,
            "would_change": list(self.tasks),
            "diffs": list(self.diffs),
            "log": str(self.log) if self.log else None,
            **_comparison(self.look),
        }


def _comparison(look: convergence.Look | None) -> dict[str, object]:
    """The reasons for running roles and the differences on the host, for `--json`."""
    if look is None:
        return {}
    differences = look.verified.differences if look.verified else ()
    return {
        "reasons": list(look.reasons),
        "differences": [difference.model_dump(mode="json") for difference in differences],
    }


def requester(verb: str) -> str:
    """This run's user and command, for the holder line of the host's lock."""
    return f"{getpass.getuser()}@{socket.gethostname()}, zorac-deploy {verb}"


def inputs_of(opened: Session) -> inputs.Inputs:
    """The digest of everything that decides the desired state of the session's host."""
    target, variables = opened.connection.target, opened.inventory.variables[opened.name]
    source = str(variables.get("model_weights_source") or "")
    extra = {"host": target.name, "profile": target.profile, "revision": pins.get(source)}
    return inputs.inputs(variables, inventory.shipped_variables(), extra)


def would_change(opened: Session, progress: Progress, facts: dict[str, Any], deep: bool = False) -> Changes:
    """Find out what `up` would change: compare the host, and run the roles in check mode only if it differs."""
    look = convergence.look(opened.connection, inputs_of(opened), with_document=True, deep=deep)
    if look.converged and look.verified and look.verified.document:
        document = look.verified.document
        facts |= {"desired_state_document": document, "memory_plan_result": document.get("plan") or None}
        return Changes((), (), None, look)
    for reason in look.reasons:
        progress.say("differs", reason)
    return replace(changes(opened, progress, facts), look=look)


def changes(opened: Session, progress: Progress, facts: dict[str, Any] | None = None) -> Changes:
    """Find out what `up` would change; `facts` is updated on the way."""
    diffs: list[str] = []

    def on_step(step: runner.Step) -> None:
        progress.step(replace(step, outcome="planned") if step.outcome == "changed" else step)
        if step.diff:
            diffs.append(step.diff)
        if facts is not None:
            facts.update(step.facts)

    log = log_file("check", opened)
    result = runner.run("up", opened.inventory.sources, opened.connection, log, check=True, on_step=on_step)
    return Changes(result.changed, tuple(diffs), log)


def show(preview: Changes) -> None:
    """Print what would change."""
    for diff in preview.diffs:
        output.print(diff, style="dim")


def notes(*facts: Mapping[str, Any]) -> None:
    """Print the notes on how the model is served; with several hosts each note once."""
    for note in dict.fromkeys(
        note for host_facts in facts for note in host_facts.get("model_weights_family", {}).get("notes", ())
    ):
        output.print(f"note: {note}")


def count(opened: Session, preview: Changes) -> None:
    """Describe how much would change."""
    number = len(preview.tasks)
    would = f"{number} task{'s' * (number != 1)} would change something" if number else "nothing would change"
    log = f" Log: {preview.log}" if preview.log else ""
    output.print(marked("[bold]{}: {}.[/] Nothing was changed.{}", opened.name, would, log))


def variables(model: str | None, context: str | int | None, replace_unit: bool = False) -> dict[str, object]:
    """The command line's options as inventory variables.

    Raises:
        Refused: `model` is not a valid model source.
    """
    settings = {
        "model_weights_source": str(source.parse(model)) if model is not None else None,
        "vllm_max_model_len": context,
        "generations_unit_replaced": replace_unit or None,
    }
    return {name: value for name, value in settings.items() if value is not None}


def converge(opened: Session, progress: Progress, facts: dict[str, Any], full: bool, deep: bool) -> Deployed:
    """Deploy what the session's inventory says, and verify it. The caller holds the lock.

    The host is compared first. If it does not differ, or can restore what differs, no role runs.

    Args:
        opened: The host.
        progress: Shows what is done.
        facts: Updated with the facts of the roles.
        full: Run every role without comparing.
        deep: Compare every byte of engine and model.
    """
    began, host_inputs = time.monotonic(), inputs_of(opened)
    progress.doing("", "Compare the host with the inventory")
    look = convergence.look(opened.connection, host_inputs, deep=deep, downgrade=full)
    for reason in look.reasons:
        progress.say("differs", reason)
    restored, latest = ((), look) if full else convergence.restore(opened.connection, host_inputs, look, deep)
    for line in restored:
        progress.say("changed", line)
    if latest.converged and not full:
        return replace(unchanged(opened, latest, time.monotonic() - began, restored), look=look)
    extra = {
        "desired_state_inputs": host_inputs.digest,
        "desired_state_deep": deep,
        "desired_state_intact": latest.intact and not full,
    }
    result = deploy(opened, progress, "up", facts, extra)
    result = replace(result, changed=restored + result.changed, seconds=time.monotonic() - began)
    return replace(proved(opened, progress, result), look=look)


def unchanged(opened: Session, look: convergence.Look, seconds: float, restored: tuple[str, ...] = ()) -> Deployed:
    """The result for a host that, by `look`, does not differ: no role has to run."""
    assert look.verified is not None  # noqa: S101 - without an answer it is not what is asked for
    served = deployment.from_status(opened.name, look.verified.status)
    return Deployed(runner.Result(restored, seconds, None), served, None, look, look.verified.reply)


def deploy(
    opened: Session,
    progress: Progress,
    verb: str,
    facts: dict[str, Any] | None = None,
    extra: Mapping[str, object] | None = None,
) -> runner.Result:
    """Run every role, and update `facts`. The caller holds the lock.

    Args:
        opened: The host.
        progress: Shows what is done.
        verb: The command that runs.
        facts: Updated with the facts of the roles.
        extra: Further variables of the command.
    """
    filling = growth.Growth(opened.connection, progress.step)

    def on_step(step: runner.Step) -> None:
        progress.step(step)
        filling.step(step)
        if facts is not None:
            facts.update(step.facts)

    # A killed run may have left an activation in progress.
    deployment.settle(opened.connection)
    with filling.watched():
        return runner.run(
            "up",
            opened.inventory.sources,
            opened.connection,
            log_file(verb, opened),
            variables={"generations_by": requester(verb), **(extra or {})},
            on_step=on_step,
        )


def proved(opened: Session, progress: Progress, result: runner.Result) -> Deployed:
    """What the host serves now, verified from this machine as a client."""
    with reached(opened) as (served, endpoint):
        smoke = chat.smoke(endpoint, lambda done: progress.step(_checked(done)))
    return Deployed(result, served, smoke)


def _checked(check: chat.Check) -> runner.Step:
    return runner.Step("smoke", check.name, "ok" if check.passed else "failed")


def log_file(verb: str, opened: Session) -> Path:
    """A new log file for `verb`. The oldest log files are removed."""
    folder = platformdirs.user_log_path("zorac-deploy")
    for old in sorted(folder.glob("*.log"))[: -_LOGS_KEPT + 1]:
        old.unlink(missing_ok=True)
    return folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{verb}-{opened.name}.log"


def report(rows: dict[str, str]) -> None:
    """Print names and values in two columns."""
    output.print()
    for name, value in rows.items():
        output.print_row(marked("  [bold]{:<12}[/] ", name), value)


def downtime(seconds: deployment.Seconds) -> dict[str, str]:
    """The row with the downtime; empty if the host recorded no times."""
    if "silent" not in seconds:
        return {}
    names = {"stop": "stop", "memory": "GPU memory", "start": "start", "proof": "verification"}
    parts = ", ".join(f"{shown} {seconds[name]:.1f}" for name, shown in names.items() if name in seconds)
    return {"downtime": f"{seconds['silent']:.1f} s ({parts})"}
