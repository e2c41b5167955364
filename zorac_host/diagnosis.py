"""Find the causes of a failure in the lines of a log, by rules.

The controller reads logs of any size with this, with RE2 for the patterns; the host reads the journal of a failed start
with Python's own `re`. The rules are the same data on both sides.
"""

import json
import pkgutil
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

# Returns the numbers of the patterns that match a line.
Matcher = Callable[[str], Sequence[int]]


class Match(Protocol):
    """The match of a pattern."""

    def groupdict(self) -> Mapping[str, str | None]:
        """The named groups."""


class Regular(Protocol):
    """A compiled pattern."""

    def search(self, line: str) -> Match | None:
        """The first match in `line`."""


class Engine(Protocol):
    """Compiles patterns that ignore case."""

    def compile(self, text: str) -> Regular:
        """One pattern."""

    def matcher(self, texts: list[str]) -> Matcher:
        """Compile many patterns for one search."""


_EVIDENCE_LIMIT = 500
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
# A value from a log is inserted into a command only if it is one plain word for a shell.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*\Z")
# From the first value on, a finding is reported alone; below the second, only if there is no other.
_STRONG, _WEAK = 0.7, 0.5
RULES = "rules.json"  # written by scripts/reference from the controller's YAML
_JOURNAL_LINES, _LINE_LIMIT = 300, 1000
_QUIET = re.compile(r"\b(INFO|DEBUG)\b")


@dataclass(frozen=True)
class Pattern:
    """A text that indicates a cause.

    Attributes:
        match: The regular expression, for one line, ignoring case.
        unless: If this matches the same line, the pattern does not.
        needs: The pattern counts only if another line of the same start matches this.
        lacks: The pattern counts only if no line of the same start matches this.
        confidence: From 0 to 1.
        consequence: Whether the line only reports a failure, so that any other finding precedes it.
        also: Other rules that the same line may belong to, with their confidence.
        cause: The cause, if it differs from the rule's; likewise the next three.
        fix: By distribution: `any`, `debian`, `ubuntu`.
        not_to_advise: What does not help, or causes damage.
        second_signal: What decides between this and other causes.
    """

    match: str
    unless: str = ""
    needs: str = ""
    lacks: str = ""
    confidence: float = 0.9
    consequence: bool = False
    also: Mapping[str, float] = field(default_factory=dict)
    cause: str = ""
    fix: Mapping[str, str] = field(default_factory=dict)
    not_to_advise: str = ""
    second_signal: str = ""


@dataclass(frozen=True)
class Rule:
    """One class of failures.

    Attributes:
        id: Its name.
        severity: `fault`, or `warning` for what works but not well.
        scope: Which later start makes a finding obsolete: `engine`, `boot` or `packages`.
        cause: The cause, in plain words.
        fix: By distribution, see `Pattern`.
        not_to_advise: What does not help, or causes damage.
        second_signal: What decides between this and other causes.
        probe: The name of the check on a host that reads the second signal.
        unless: If this matches a line, no pattern of the rule does.
        ended_by: A later line that matches this shows that the fault is over.
        after: Rules whose findings are the cause of this one's, and precede it.
        patterns: Its patterns.
    """

    id: str
    severity: str
    scope: str
    cause: str
    fix: Mapping[str, str]
    not_to_advise: str
    second_signal: str
    patterns: tuple[Pattern, ...]
    probe: str = ""
    unless: str = ""
    ended_by: str = ""
    after: tuple[str, ...] = ()

    @staticmethod
    def parse(data: Mapping[str, Any]) -> "Rule":
        """Parse a rule from JSON data."""
        patterns = tuple(Pattern(**pattern) for pattern in data["patterns"])
        return Rule(**{**data, "patterns": patterns, "after": tuple(data.get("after", ()))})


@dataclass(frozen=True)
class Finding:
    """A finding, see `Rule`. `evidence` is the line that shows it."""

    id: str
    cause: str
    evidence: str
    fix: str
    not_to_advise: str
    second_signal: str
    confidence: float

    def summary(self) -> dict[str, Any]:
        """The finding as JSON."""
        return dict(self.__dict__)


@dataclass
class _Match:
    """The first match of a pattern: its line, its place in the log, and its values."""

    line: str
    place: int
    values: Mapping[str, str]


@dataclass
class _Segment:
    """The matches in one start, and the patterns whose `needs` or `lacks` matched."""

    matches: dict[int, _Match] = field(default_factory=dict)
    needs: set[int] = field(default_factory=set)
    lacks: set[int] = field(default_factory=set)
    failed: bool = False


# The lines that begin a start, by scope. The engine's second one counts only if the log lacks the first: it is printed
# some seconds into the start, after warnings of that start.
_STARTS = {
    "engine": (
        r"systemd\[1\]: Start(ing|ed) .{0,80}(vllm|llama|engine)|Scheduled restart job, restart counter",
        r"vLLM API server version|\bbuild: \d+ \([0-9a-f]+\) with |srv  llama_server: initializing",
    ),
    "boot": (r"^-- (Boot \w+|Reboot) --|kernel: Linux version \d|^\[ +0\.0+\] Linux version \d", ""),
    "packages": (r"^Log started: \d|^Start-Date: \d", ""),
}


class Diagnosis:
    """Reads lines, and returns the findings at the end. The last failed start counts.

    Its memory does not grow with the log.
    """

    def __init__(self, rules: Iterable[Rule], engine: Engine, system: str = "") -> None:
        """Prepare to read.

        Args:
            rules: The rules.
            engine: Compiles their patterns.
            system: `debian` or `ubuntu`, for the cure; empty if unknown.
        """
        self._rules = list(rules)
        self._system = system
        self._patterns = [(rule, pattern) for rule in self._rules for pattern in rule.patterns]
        unless = {text for rule, pattern in self._patterns for text in (rule.unless, pattern.unless) if text}
        self._unless = {text: engine.compile(text) for text in unless}
        self._regular = [engine.compile(pattern.match) for _, pattern in self._patterns]
        texts: list[str] = []
        self._jobs: list[tuple[str, int]] = []
        for number, (_, pattern) in enumerate(self._patterns):
            texts.append(pattern.match)
            self._jobs.append(("match", number))
            for kind, text in (("needs", pattern.needs), ("lacks", pattern.lacks)):
                if text:
                    texts.append(text)
                    self._jobs.append((kind, number))
        for number, rule in enumerate(self._rules):
            if rule.ended_by:
                texts.append(rule.ended_by)
                self._jobs.append(("ended", number))
        for scope, markers in _STARTS.items():
            for number, marker in enumerate(markers):
                if marker:
                    texts.append(marker)
                    self._jobs.append((scope, number))
        self._match = engine.matcher(texts)
        self._latest = {scope: _Segment() for scope in _STARTS}
        self._failed: dict[str, _Segment] = {}
        self._begun: dict[str, bool] = dict.fromkeys(_STARTS, False)
        self._place = 0

    def feed(self, line: str) -> bool:
        """Read the next line; return whether it matches anything."""
        self._place += 1
        numbers = self._match(line)
        if not numbers:
            return False
        jobs = [self._jobs[number] for number in numbers]
        # A line may end an earlier start or fault, and show the next one.
        for kind, number in sorted(jobs, key=lambda job: job[0] not in _STARTS):
            if kind in _STARTS:
                self._start(kind, number)
            elif kind == "match":
                self._note(number, line)
            elif kind == "needs":
                self._latest[self._patterns[number][0].scope].needs.add(number)
            elif kind == "lacks":
                self._latest[self._patterns[number][0].scope].lacks.add(number)
            else:
                self._end(self._rules[number])
        return any(kind not in ("needs", "lacks") for kind, _ in jobs)

    def findings(self) -> list[Finding]:
        """The findings, the likeliest cause first."""
        matches = [item for scope in _STARTS for item in self._matches(scope)]
        if any(_sure(pattern) for _, pattern, _ in matches):
            matches = [item for item in matches if item[1].confidence >= _WEAK]
        best: dict[str, tuple[tuple[Any, ...], Finding]] = {}
        ids = {rule.id for rule, pattern, _ in matches if not pattern.consequence}
        for rule, pattern, match in sorted(matches, key=lambda item: (-item[1].confidence, item[2].place)):
            if rule.id not in best:
                rank = (
                    pattern.consequence,
                    bool(ids & {*rule.after}),
                    rule.severity == "warning",
                    pattern.confidence < _STRONG,
                    match.place,
                )
                best[rule.id] = rank, self._finding(rule, pattern, match)
        findings = [finding for _, finding in sorted(best.values(), key=lambda item: item[0])]
        return findings + [finding for finding in self._alternatives(matches) if finding.id not in best]

    def _note(self, number: int, line: str) -> None:
        rule, pattern = self._patterns[number]
        for unless in (pattern.unless, rule.unless):
            if unless and self._unless[unless].search(line):
                return
        segment = self._latest[rule.scope]
        segment.failed |= rule.severity == "fault"
        if number not in segment.matches:
            hit = self._regular[number].search(line)
            values = {name: value for name, value in (hit.groupdict() if hit else {}).items() if value}
            segment.matches[number] = _Match(line.strip()[:_EVIDENCE_LIMIT], self._place, values)

    def _end(self, rule: Rule) -> None:
        segment = self._latest[rule.scope]
        for number in [number for number in segment.matches if self._patterns[number][0] is rule]:
            del segment.matches[number]
        segment.failed = any(self._patterns[number][0].severity == "fault" for number in segment.matches)

    def _start(self, scope: str, number: int) -> None:
        if number == 0 or self._begun[scope]:
            if self._latest[scope].failed:
                self._failed[scope] = self._latest[scope]
            self._latest[scope] = _Segment()
        self._begun[scope] = number != 0

    def _matches(self, scope: str) -> Iterator[tuple[Rule, Pattern, _Match]]:
        """The findings of the last failed start, and the warnings of the last one."""
        latest = self._latest[scope]
        segments = [latest] if latest.failed or scope not in self._failed else [self._failed[scope], latest]
        for segment in segments:
            for number, match in segment.matches.items():
                rule, pattern = self._patterns[number]
                if (not pattern.needs or number in segment.needs) and number not in segment.lacks:
                    yield rule, pattern, match

    def _alternatives(self, matches: list[tuple[Rule, Pattern, _Match]]) -> list[Finding]:
        """The other possible causes of the same lines. A line with a certain cause has no others."""
        sure = any(_sure(pattern) for _, pattern, _ in matches)
        rules = {rule.id: rule for rule in self._rules}
        others: dict[str, Finding] = {}
        for _, pattern, match in [] if sure else matches:
            for name, confidence in pattern.also.items():
                other = Pattern("", confidence=confidence)
                if name in rules and name not in others:
                    others[name] = self._finding(rules[name], other, match)
        return sorted(others.values(), key=lambda finding: -finding.confidence)

    def _finding(self, rule: Rule, pattern: Pattern, match: _Match) -> Finding:
        return Finding(
            id=rule.id,
            cause=_filled(pattern.cause or rule.cause, match.values, str),
            evidence=match.line,
            fix=_filled(cure(pattern.fix or rule.fix, self._system), match.values, _plain),
            not_to_advise=pattern.not_to_advise or rule.not_to_advise,
            second_signal=pattern.second_signal or rule.second_signal,
            confidence=pattern.confidence,
        )


def _sure(pattern: Pattern) -> bool:
    return pattern.confidence >= _STRONG and not pattern.consequence


def cure(fix: Mapping[str, str], system: str) -> str:
    """The cure for a system: the general one and its own. For an unknown system, all of them."""
    systems = {"debian": "Debian", "ubuntu": "Ubuntu"}
    parts = [fix["any"]] if fix.get("any") else []
    if system in systems:
        return "\n".join([*([fix[system]] if fix.get(system) else []), *parts])
    return "\n".join([*(f"{name}: {fix[key]}" for key, name in systems.items() if fix.get(key)), *parts])


def _filled(text: str, values: Mapping[str, str], check: Callable[[str], str]) -> str:
    """Insert the line's values into `text`; a placeholder without a value stays."""
    return _PLACEHOLDER.sub(lambda hit: check(values[hit[1]]) if hit[1] in values else hit[0], text)


def _plain(value: str) -> str:
    return value if _PLAIN.match(value) else "VALUE"


class Plain:
    """Python's own regular expressions, one after another."""

    def compile(self, text: str) -> Regular:
        """Compile one pattern."""
        return re.compile(text, re.IGNORECASE)

    def matcher(self, texts: list[str]) -> Matcher:
        """Compile many patterns."""
        compiled = [self.compile(text) for text in texts]
        return lambda line: [number for number, pattern in enumerate(compiled) if pattern.search(line)]


def packed() -> list[Rule]:
    """The rules packed into this program."""
    return [Rule.parse(data) for data in json.loads(pkgutil.get_data("zorac_host", RULES) or b"[]")]


def of_journal(text: str) -> list[Finding]:
    """The findings in the journal of a failed start on this host. Warnings are not the cause of a failure.

    Python's own regular expressions take milliseconds per line, so the engine's information lines are skipped.
    """
    lines = [line for line in text.splitlines() if not _QUIET.search(line)]
    system = platform.freedesktop_os_release().get("ID", "")
    diagnosis = Diagnosis([rule for rule in packed() if rule.severity == "fault"], Plain(), system)
    for line in list(dict.fromkeys(lines))[-_JOURNAL_LINES:]:
        diagnosis.feed(line[:_LINE_LIMIT])
    return diagnosis.findings()


def brief(findings: list[Finding]) -> list[str]:
    """The likeliest cause in a few lines; empty if only consequences, or nothing, are known."""
    if not findings or findings[0].confidence < _STRONG:
        return []
    first = findings[0]
    return [first.evidence, f"cause: {first.cause}", *(f"type: {step}" for step in first.fix.splitlines())]
