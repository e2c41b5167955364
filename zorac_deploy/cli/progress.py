"""Show the progress of a run: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

from rich.text import Text

from zorac_deploy import runner
from zorac_deploy.cli.terminal import Terminal, marked

_NOTE_SECONDS = 15
_NOISE = ("Validating arguments", "Run the preflight checks", "Gathering Facts")


class Progress:
    """Follows the steps of a run.

    Args:
        console: Where to write.
        verbose: Also print the tasks that changed nothing.
        quiet: Write nothing.
    """

    def __init__(self, console: Terminal, verbose: bool = False, quiet: bool = False) -> None:
        self._console, self._verbose, self._quiet = console, verbose, quiet
        self._began = self._task_began = time.monotonic()
        self._current = ""
        self._role = ""
        self._note, self._noted = "", 0.0

    def __rich__(self) -> Text:
        took, total = time.monotonic() - self._task_began, time.monotonic() - self._began
        note = f" {self._note} " if self._note else " "
        return marked("{}[dim]{:.0f} s, {:.0f} s in all[/]", self._current + note, took, total)

    @contextlib.contextmanager
    def shown(self, doing: str) -> Iterator[None]:
        """Show the run within the context, starting with the step `doing`."""
        self._begin(doing)
        if self._quiet:
            yield
        elif self._console.is_terminal:
            with self._console.status(self):  # rich renders it repeatedly, so the elapsed time runs
                yield
        else:
            self._line("", doing)
            yield

    def step(self, step: runner.Step) -> None:
        """Record `step`."""
        if step.outcome == "started":
            self._begin(f"{step.role}: {step.task}" if step.role else step.task)
            if step.role != self._role and step.role and not self._console.is_terminal:
                self._line("", step.role)
            self._role = step.role
        elif step.outcome == "waiting":
            self._wait(step)
        elif step.outcome == "changed" or (self._verbose and not step.task.startswith(_NOISE)):
            self._line(step.outcome, f"{step.role}: {step.task}")

    def say(self, outcome: str, text: str) -> None:
        """Print a line that is not a step of a run."""
        self._line(outcome, text)

    def doing(self, action: str, which: str) -> None:
        """Record the start of a step outside of a playbook, and its object."""
        self.step(runner.Step(action, which, "started"))

    def _begin(self, doing: str) -> None:
        self._current, self._task_began = doing, time.monotonic()
        self._note, self._noted = "", 0.0

    def _wait(self, step: runner.Step) -> None:
        """Show how far a waiting task is: always on a terminal, occasionally elsewhere."""
        self._note = step.note
        if step.note and not self._console.is_terminal and time.monotonic() - self._noted > _NOTE_SECONDS:
            self._noted = time.monotonic()
            self._line("waiting", step.note)

    def _line(self, outcome: str, text: str) -> None:
        if self._quiet:
            return
        colour = {"changed": "yellow", "differs": "yellow", "failed": "red"}.get(outcome, "green")
        elapsed = time.monotonic() - self._began
        self._console.print_row(marked("[dim]{:6.1f} s[/]  [" + colour + "]{:<8}[/]", elapsed, outcome), text)
