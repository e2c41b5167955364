"""What is wrong on a host, and how to reach into what its probes found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from zorac_host.diagnosis import Finding

Facts: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong on a host.

    Attributes:
        id: Its name: of the class of a log's rule where there is one, else its own.
        severity: `fault`, or `warning` for what works but not well.
        cause: What is wrong, in plain words.
        evidence: What was found.
        fix: What to type, a step a line.
        not_to_advise: What does not help, or does harm.
        second_signal: What else to look at; empty where the host has decided it.
        confidence: From 0 to 1.
        safe: Commands for a shell of root on the host that cure it and can do no harm: `--fix` offers them.
    """

    id: str
    severity: str
    cause: str
    evidence: str
    fix: str
    not_to_advise: str = ""
    second_signal: str = ""
    confidence: float = 0.95
    safe: tuple[str, ...] = ()

    @staticmethod
    def of(finding: Finding, severity: str = "fault") -> Trouble:
        """A finding of a log."""
        return Trouble(severity=severity, **finding.summary())

    @property
    def rank(self) -> tuple[bool, bool]:
        """Sorts the worst first, and leaves the order of the chain."""
        return self.severity == "warning", self.confidence < 0.7

    def summary(self) -> dict[str, Any]:
        """As JSON has it."""
        return {name: value for name, value in asdict(self).items() if name != "safe"}


def answers(facts: Facts) -> bool:
    """Whether the engine serves a client."""
    return part(facts, "endpoint").get("health") == 200


def part(facts: Facts, name: str) -> Mapping[str, Any]:
    """What a probe found, where it found a mapping; nothing where it failed."""
    found = facts.get(name)
    return found if isinstance(found, dict) and "failed" not in found else {}


def rows(facts: Facts, name: str) -> list[Mapping[str, Any]]:
    """The rows that a probe found; none where it failed."""
    found = facts.get(name)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
