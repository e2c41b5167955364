"""`zorac-deploy up HOST HOST …`: compare all hosts in parallel, then run the roles on one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from typing import Any

from zorac_deploy import convergence
from zorac_deploy.cli import deploying
from zorac_deploy.cli.common import Session, errors, output
from zorac_deploy.cli.progress import Progress
from zorac_deploy.cli.terminal import marked
from zorac_deploy.errors import Interrupted, Refused, ZoracDeployError, exit_code_of

# How many connections are opened in parallel. Each is an ssh process of this machine.
_AT_ONCE = 16


@dataclass(frozen=True)
class Outcome:
    """The result for one host.

    Attributes:
        host: Its name.
        done: The deployment; None if the run did not get so far.
        fault: The error; None if it succeeded.
        facts: The facts of the roles.
    """

    host: str
    done: deploying.Deployed | None = None
    fault: ZoracDeployError | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def summary(self) -> dict[str, object]:
        """The object that `--json` prints."""
        answer: dict[str, object] = self.done.summary() if self.done else {"host": self.host}
        if self.fault is None:
            return answer
        refusal = self.fault.refusal if isinstance(self.fault, Refused) else None
        return answer | {"error": {"id": refusal, "message": str(self.fault), "exit_code": exit_code_of(self.fault)}}


def bring_up(
    hosts: Sequence[Session],
    progress: Progress,
    deploy: Callable[[Session, dict[str, Any]], deploying.Deployed],
    full: bool,
    deep: bool,
) -> list[Outcome]:
    """Deploy each of `hosts`; an error of one does not stop the others.

    Args:
        hosts: The hosts.
        progress: Shows what is done.
        deploy: Deploys one host, and updates the mapping with the facts of its roles.
        full: Run every role of every host without comparing.
        deep: Compare every byte of engine and model on each host.

    Returns:
        The outcomes, in the order of the hosts.

    Raises:
        Interrupted: Ctrl-C. The message names the hosts that were not changed.
    """
    outcomes: dict[str, Outcome] = {}
    begun: set[str] = set()
    try:
        if not full:
            with progress.shown(f"Check {len(hosts)} hosts"):
                outcomes |= {outcome.host: outcome for outcome in _compared(hosts, progress, deep)}
        for opened in hosts:
            if opened.name in outcomes:
                continue
            begun.add(opened.name)
            progress.say("", f"{opened.name}: deploy")
            outcomes[opened.name] = _deployed(opened, deploy)
    except (KeyboardInterrupt, Interrupted) as stop:
        left = [opened.name for opened in hosts if opened.name not in begun | set(outcomes)]
        reason = str(stop) or "Interrupted."
        raise Interrupted(f"{reason} Hosts not deployed: {', '.join(left) or 'none'}.") from None
    return [outcomes[opened.name] for opened in hosts]


def _compared(hosts: Sequence[Session], progress: Progress, deep: bool) -> Iterator[Outcome]:
    """The results for the hosts that do not differ, and for those that cannot be reached.

    Nothing is changed, so no lock is held: a run in progress has removed the inputs from the host's document.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = {pool.submit(_look, opened, deep): opened for opened in hosts}
        try:
            for answer in as_completed(answers):
                outcome = _judged(answers[answer], answer, progress)
                if outcome:
                    yield outcome
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _look(opened: Session, deep: bool) -> tuple[convergence.Look, float]:
    began = time.monotonic()
    return convergence.look(opened.connection, deploying.inputs_of(opened), deep=deep), time.monotonic() - began


def _judged(opened: Session, answer: Future[tuple[convergence.Look, float]], progress: Progress) -> Outcome | None:
    """The result, if no role has to run; it is printed as a line."""
    try:
        look, seconds = answer.result()
    except ZoracDeployError as fault:
        progress.say("failed", f"{opened.name}: check failed, exit code {exit_code_of(fault)}")
        return Outcome(opened.name, fault=fault)
    if look.converged:
        progress.say("ok", f"{opened.name}: nothing changed")
        return Outcome(opened.name, deploying.unchanged(opened, look, seconds))
    rest = len(look.reasons) - 1
    progress.say("differs", f"{opened.name}: {look.reasons[0]}{f', and {rest} more' if rest else ''}")
    return None


def _deployed(opened: Session, deploy: Callable[[Session, dict[str, Any]], deploying.Deployed]) -> Outcome:
    done, facts = None, dict[str, Any]()
    try:
        done = deploy(opened, facts)
        done.require()
    except Interrupted:
        raise
    except ZoracDeployError as fault:
        return Outcome(opened.name, done, fault, facts)
    return Outcome(opened.name, done, None, facts)


def report(outcomes: Sequence[Outcome]) -> None:
    """Print a line for each host, and each error."""
    output.print()
    width = max(len(outcome.host) for outcome in outcomes)
    for outcome in outcomes:
        output.print(marked("  [bold]{}[/]  {}", outcome.host.ljust(width), _line(outcome)))
    deploying.notes(*(outcome.facts for outcome in outcomes))
    for outcome in outcomes:
        if outcome.fault:
            kind = f" [{outcome.fault.refusal}]" if isinstance(outcome.fault, Refused) else ""
            errors.print(marked("[bold red]error{}[/] on {}: {}", kind, outcome.host, outcome.fault))


def _line(outcome: Outcome) -> str:
    if outcome.fault:
        return f"failed, exit code {exit_code_of(outcome.fault)}"
    assert outcome.done is not None  # noqa: S101 - a host without a fault was deployed
    served, result = outcome.done.served, outcome.done.result
    return (
        f"{result.summary()}, {result.seconds:.1f} s; generation {served.generation}, {served.model} on {served.url}/v1"
    )
