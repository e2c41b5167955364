"""A finding on a host, and access to the probes' results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from zorac_host.diagnosis import Finding

Facts: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Trouble:
    """A finding on a host.

    Attributes:
        id: The id of a rule for logs with the same meaning, or its own.
        severity: `fault`, or `warning` for what works with limits.
        cause: What is wrong, in plain words.
        evidence: The values found.
        fix: The commands, a step per line.
        not_to_advise: What does not help, or causes damage.
        second_signal: What else to check; empty if the host has decided it.
        confidence: From 0 to 1.
        safe: Root shell commands for the host that cure it and are safe: `--fix` offers them.
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
        """The finding for one in a log."""
        return Trouble(severity=severity, **finding.summary())

    @property
    def rank(self) -> tuple[bool, bool]:
        """The sort key: the worst first, otherwise in the order of the checks."""
        return self.severity == "warning", self.confidence < 0.7

    def summary(self) -> dict[str, Any]:
        """The finding as JSON."""
        return {name: value for name, value in asdict(self).items() if name != "safe"}


def answers(facts: Facts) -> bool:
    """Whether the engine serves a client."""
    return part(facts, "endpoint").get("health") == 200


def part(facts: Facts, name: str) -> Mapping[str, Any]:
    """The result of a probe if it is a mapping; empty if it failed."""
    result = facts.get(name)
    return result if isinstance(result, dict) and "failed" not in result else {}


def rows(facts: Facts, name: str) -> list[Mapping[str, Any]]:
    """The rows of a probe; empty if it failed."""
    result = facts.get(name)
    return [row for row in result if isinstance(row, dict)] if isinstance(result, list) else []
