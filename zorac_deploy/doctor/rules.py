"""The doctor's rules: YAML files, one per class of failures, validated when they are loaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
import re2
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from zorac_deploy.errors import Refused
from zorac_host import diagnosis

FOLDER = Path(__file__).parent / "rules"
# In C, if PyYAML was built with libyaml: loading the rules takes less than half of the time.
_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FILE_LIMIT_BYTES = 256 * 2**10
_PATTERN_LIMIT = 1000
# The compiled pattern's limit; nested counted repetitions exceed it.
_MEMORY_LIMIT_BYTES = 2**20
_AUTOMATON_LIMIT_BYTES = 64 * 2**20
# The host uses Python's own regular expressions for the shipped patterns; with a nested repetition they may never end.
_NESTED = re2.compile(r"\([^()]*[^()\\][+*][^()]*\)[+*]")
_COUNTED = re2.compile(r"\{\d+,\d+\}")
_OPTIONS = re2.Options()
_OPTIONS.case_sensitive = False
_OPTIONS.log_errors = False
_OPTIONS.max_mem = _MEMORY_LIMIT_BYTES
_PROBES = Literal[
    "address_owner", "apt_state", "compiler", "disk", "dkms", "driver_versions", "gpu_capability", "gpu_devices",
    "gpu_health", "gpu_processes", "headers", "hub", "kernel_log", "key", "libcuda", "limits", "loaded_modules",
    "memory", "model_files", "packages", "secure_boot", "served_model", "unit", "unit_log", "wsl",
]  # fmt: skip


class Linear:
    """RE2: a search takes time linear in the length of the line, for any pattern."""

    def compile(self, text: str) -> diagnosis.Regular:
        """Compile one pattern."""
        return _compiled(text)

    def matcher(self, texts: list[str]) -> diagnosis.Matcher:
        """Compile many patterns into one automaton."""
        return _automaton(tuple(texts))


@cache
def _compiled(text: str) -> diagnosis.Regular:
    compiled: diagnosis.Regular = re2.compile(text, _OPTIONS)
    return compiled


@cache
def _automaton(texts: tuple[str, ...]) -> diagnosis.Matcher:
    options = re2.Options()
    options.case_sensitive = False
    options.max_mem = _AUTOMATON_LIMIT_BYTES
    automaton = re2.Set.SearchSet(options)
    for text in texts:
        # A counted gap has a state per count: without a limit it is many times faster, and matches more.
        automaton.Add(_COUNTED.sub("*", text))
    try:
        automaton.Compile()
    except re2.error:
        message = f"all rules together are too large. Move some out of {user_folder()}."
        raise Refused(message, "rule-invalid") from None
    match: Any = automaton.Match
    exact = {number: _compiled(text) for number, text in enumerate(texts) if _COUNTED.search(text)}

    def matching(line: str) -> Sequence[int]:
        numbers = match(line)
        return [n for n in numbers if n not in exact or exact[n].search(line)] if numbers else ()

    return matching


def _regular(text: str) -> str:
    if len(text) > _PATTERN_LIMIT:
        raise ValueError(f"the pattern is {len(text)} characters long; {_PATTERN_LIMIT} are the limit")
    if _NESTED.search(text):
        raise ValueError(f"the pattern {text[:80]!r} repeats a group that repeats itself; say it with one repetition")
    try:
        compiled = re2.compile(text, _OPTIONS)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error.args[0])
        raise ValueError(
            f"the pattern {text[:80]!r} is not one of RE2, which has no look-ahead and no back-reference: {reason}"
        ) from None
    if compiled.search(""):
        raise ValueError(f"the pattern {text[:80]!r} matches an empty line, so it would match every line")
    return text


_Regular = Annotated[str, AfterValidator(_regular)]
_Text = Annotated[str, Field(min_length=1), AfterValidator(lambda text: " ".join(text.split()))]
# One step per line. A semicolon in quotes belongs to a command.
_STEP_END = re2.compile(r"""('[^']*'|"[^"]*")|; """)
_Steps = Annotated[_Text, AfterValidator(lambda text: _STEP_END.sub(lambda hit: hit[1] or "\n", text).rstrip(";"))]
_Confidence = Annotated[float, Field(ge=0.1, le=1)]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fix(_Data):
    """A cure: for any distribution, or for one. Steps end with a semicolon."""

    any: _Steps | None = None
    debian: _Steps | None = None
    ubuntu: _Steps | None = None

    @model_validator(mode="before")
    @classmethod
    def _one_text(cls, data: Any) -> Any:
        return {"any": data} if isinstance(data, str) else data

    @model_validator(mode="after")
    def _complete(self) -> Fix:
        if not (self.any or (self.debian and self.ubuntu)):
            raise ValueError("a cure for each distribution is needed: `any`, or both `debian` and `ubuntu`")
        return self


class PatternData(_Data):
    """See `diagnosis.Pattern`."""

    match: _Regular
    unless: _Regular | None = None
    needs: _Regular | None = None
    lacks: _Regular | None = None
    confidence: _Confidence = 0.9
    consequence: bool = False
    also: dict[str, _Confidence] = {}
    cause: _Text | None = None
    fix: Fix | None = None
    not_to_advise: _Text | None = None
    second_signal: _Text | None = None


class Fixtures(_Data):
    """Excerpts of logs that test the rule."""

    match: Annotated[tuple[str, ...], Field(min_length=1)]
    no_match: tuple[str, ...] = ()


class RuleData(_Data):
    """A rule in its file, see `diagnosis.Rule`. `title`, `versions` and `sources` are for readers."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,40}$")]
    title: _Text
    severity: Literal["fault", "warning"] = "fault"
    scope: Literal["engine", "boot", "packages"]
    cause: _Text
    fix: Fix
    not_to_advise: _Text
    second_signal: _Text
    probe: _PROBES
    versions: _Text
    sources: Annotated[tuple[_Text, ...], Field(min_length=1)]
    patterns: Annotated[tuple[PatternData, ...], Field(min_length=1)]
    unless: _Regular | None = None
    ended_by: _Regular | None = None
    after: tuple[str, ...] = ()
    fixtures: Fixtures

    def plain(self) -> dict[str, Any]:
        """The fields that `diagnosis` uses, as JSON."""
        people = {"title", "versions", "sources", "fixtures"}
        return self.model_dump(mode="json", exclude=people, exclude_none=True)

    def rule(self) -> diagnosis.Rule:
        """The rule for `diagnosis`."""
        return diagnosis.Rule.parse(self.plain())


def user_folder() -> Path:
    """The directory of the user's own rules."""
    return platformdirs.user_config_path("zorac-deploy") / "rules"


@cache
def shipped() -> tuple[RuleData, ...]:
    """The rules of this program, by name."""
    return tuple(load(path) for path in sorted(FOLDER.glob("*.yaml")))


def all_rules() -> tuple[RuleData, ...]:
    """The shipped rules and the user's; a user's rule replaces a shipped one of the same id.

    Raises:
        Refused: A user's rule is invalid.
    """
    folder = user_folder()
    paths = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]) if folder.is_dir() else []
    by_id = {}
    for path in paths:
        rule = load(path)
        require_fixtures(rule, path)
        if rule.id in by_id:
            raise _refusal(path, f"the id {rule.id} is another rule's in the same directory")
        by_id[rule.id] = rule
    return tuple({**{rule.id: rule for rule in shipped()}, **by_id}.values())


def load(path: Path) -> RuleData:
    """Load the rule in the file `path`.

    Raises:
        Refused: It cannot be read, or is not a rule; the message says where and why.
    """
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_LIMIT_BYTES + 1)
        if len(text) > _FILE_LIMIT_BYTES:
            raise _refusal(path, f"it is larger than {_FILE_LIMIT_BYTES >> 10} KiB")
        data = yaml.load(text.decode(), Loader=_Loader)  # noqa: S506 - a safe loader
    except OSError as error:
        raise _refusal(path, error.strerror or str(error)) from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(path, f"it is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise _refusal(path, "a mapping with id, cause, fix and patterns is needed")
    try:
        return RuleData.model_validate(data)
    except ValidationError as error:
        raise _refusal(path, "; ".join(_complaints(error))) from None


def require_fixtures(rule: RuleData, path: Path) -> None:
    """Require that the rule passes its own fixtures.

    Raises:
        Refused: It does not; the message has the fixture.
    """
    for expected, fixtures in ((True, rule.fixtures.match), (False, rule.fixtures.no_match)):
        for text in fixtures:
            matcher = diagnosis.Diagnosis([rule.rule()], Linear())
            for line in text.splitlines():
                matcher.feed(line)
            if bool(matcher.findings()) is not expected:
                verb = "does not match" if expected else "matches, and should not,"
                raise _refusal(path, f"its own patterns: it {verb} the fixture {text[:80]!r}")


def _complaints(error: ValidationError) -> Iterator[str]:
    for detail in error.errors()[:3]:
        yield f"{'.'.join(map(str, detail['loc'])) or 'the file'}: {detail['msg'].removeprefix('Value error, ')}"


def _refusal(path: Path, reason: str) -> Refused:
    return Refused(
        f"the rule {path} cannot be used: {reason}. Correct it, or move it out of the directory. "
        "The fields of a rule are in docs/reference/troubleshooting.md.",
        "rule-invalid",
    )
