"""zorac_deploy/doctor/rules.py: the shipped rules are right by their own fixtures, and a user's are checked."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

from zorac_deploy.doctor import rules
from zorac_deploy.errors import Refused
from zorac_host import diagnosis

_SHIPPED = rules.shipped()
_HARMLESS = yaml.safe_load((Path(__file__).parent / "harmless.yaml").read_text())
_CASES = Path(__file__).parents[3] / "shared/cases/doctor.json"
_OWN = {
    "id": "disk_on_fire",
    "title": "The disk burns",
    "scope": "boot",
    "cause": "The disk burns.",
    "fix": "sudo poweroff",
    "not_to_advise": "Do not pour water on it.",
    "second_signal": "Smoke.",
    "probe": "disk",
    "versions": "any",
    "sources": ["https://example.org"],
    "patterns": [{"match": "disk (on|is on) fire"}],
    "fixtures": {"match": ["lp0: disk on fire"]},
}


def found(text, among=_SHIPPED, engine=None):
    reading = diagnosis.Diagnosis([rule.rule() for rule in among], engine or rules.Linear())
    for line in text.splitlines():
        reading.feed(line)
    return reading.findings()


def ids(text):
    return [finding.id for finding in found(text)]


@pytest.mark.parametrize("rule", _SHIPPED, ids=lambda rule: rule.id)
def test_a_rule_comes_first_in_its_own_excerpts(rule):
    assert len(rule.fixtures.match) >= 3
    for text in rule.fixtures.match:
        assert ids(text)[:1] == [rule.id], text


@pytest.mark.parametrize("rule", _SHIPPED, ids=lambda rule: rule.id)
def test_a_rule_stays_away_from_excerpts_that_only_look_like_its_own(rule):
    assert rule.fixtures.no_match
    for text in rule.fixtures.no_match:
        assert rule.id not in ids(text), text


@pytest.mark.parametrize("name", _HARMLESS)
def test_nothing_is_found_in_a_harmless_log(name):
    assert ids(_HARMLESS[name]) == []


def test_there_are_twenty_harmless_logs():
    assert len(_HARMLESS) >= 20


def test_the_collected_excerpts_are_recognized():
    cases = json.loads(_CASES.read_text()) if _CASES.is_file() else []  # they are not part of this repository
    outcome = {case["id"]: (case["class"], ids(case["excerpt"])) for case in cases}
    assert {each["class"] for each in cases} <= {rule.id for rule in _SHIPPED}
    first = [wanted == got[0] for wanted, got in outcome.values() if got]
    assert sum(first) >= 0.98 * len(cases)
    assert [name for name, (wanted, got) in outcome.items() if wanted not in got] == []


@pytest.mark.parametrize("rule", _SHIPPED, ids=lambda rule: rule.id)
def test_a_rule_names_rules_that_exist_and_a_cure_for_each_distribution(rule):
    known = {each.id for each in _SHIPPED}
    assert set(rule.after) <= known - {rule.id}
    for pattern in rule.patterns:
        assert set(pattern.also) <= known - {rule.id}
    plain = rule.rule()
    for fix in (plain.fix, *(pattern.fix for pattern in plain.patterns if pattern.fix)):
        for system in ("debian", "ubuntu", ""):
            assert diagnosis.cure(fix, system)


@pytest.mark.parametrize("rule", _SHIPPED, ids=lambda rule: rule.id)
def test_a_value_in_a_text_is_a_group_of_its_pattern(rule):
    for pattern in rule.patterns:
        own = json.dumps([pattern.cause, pattern.fix and pattern.fix.model_dump(), pattern.second_signal])
        assert set(re.findall(r"\{([a-z]+)\}", own)) <= set(re.findall(r"\?P<(\w+)>", pattern.match))


@pytest.mark.parametrize("rule", _SHIPPED, ids=lambda rule: rule.id)
def test_the_host_finds_the_same_with_regular_expressions_of_python(rule):
    for text in (*rule.fixtures.match, *rule.fixtures.no_match):
        assert found(text, [rule], diagnosis.Plain()) == found(text, [rule])


def test_a_consequence_never_goes_before_its_cause():
    text = (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n"
        "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue.\n"
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    )
    assert ids(text)[0] == "cuda_oom"
    assert ids("\n".join(reversed(text.splitlines())))[0] == "cuda_oom"


def test_a_value_of_a_log_goes_into_a_cure_and_nothing_that_a_shell_would_run():
    line = "[Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use"
    assert "sport = :8000" in found(line)[0].fix
    (finding,) = found(" linux-modules-nvidia-580-$(reboot) : Depends: nvidia-kernel-common-580 (= 1)")
    assert "$(reboot)" not in finding.fix
    assert "VALUE" in finding.fix


def test_a_cure_is_the_distributions_own():
    (rule,) = (rule.rule() for rule in _SHIPPED if rule.id == "secure_boot")
    assert "update-secureboot-policy" not in diagnosis.cure(rule.fix, "debian")
    assert "update-secureboot-policy" in diagnosis.cure(rule.fix, "ubuntu")


def test_a_rule_survives_json():
    for rule in _SHIPPED:
        assert diagnosis.Rule.parse(json.loads(json.dumps(rule.plain()))) == rule.rule()
        assert dataclasses.is_dataclass(rule.rule())


@pytest.fixture
def folder(monkeypatch, tmp_path):
    monkeypatch.setattr(rules, "user_folder", lambda: tmp_path)
    return tmp_path


def test_a_users_rule_is_used_by_being_written(folder):
    (folder / "fire.yaml").write_text(yaml.safe_dump(_OWN))
    among = rules.all_rules()
    assert len(among) == len(_SHIPPED) + 1
    assert [finding.id for finding in found("lp0: disk is on fire", among)] == ["disk_on_fire"]


def test_a_users_rule_goes_before_a_shipped_one_of_the_same_id(folder):
    (folder / "full.yml").write_text(yaml.safe_dump({**_OWN, "id": "disk_full"}))
    among = rules.all_rules()
    assert len(among) == len(_SHIPPED)
    assert "sudo poweroff" in [rule.rule().fix.get("any") for rule in among]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"patterns": [{"match": "disk (on fire"}]}, "missing )"),
        ({"patterns": [{"match": "(?=disk)on fire"}]}, "no look-ahead"),
        ({"patterns": [{"match": r"(disk) \1"}]}, "no look-ahead and no back-reference"),
        ({"patterns": [{"match": "(a+)+$"}]}, "repeats a group that repeats itself"),
        ({"patterns": [{"match": "((a{1,100}){1,100}){1,100}"}]}, "is not one of RE2"),
        ({"patterns": [{"match": "disk|"}]}, "every line"),
        ({"patterns": [{"match": "x" * 2000}]}, "2000 characters"),
        ({"patterns": []}, "patterns: "),
        ({"probe": "crystal_ball"}, "probe: "),
        ({"fix": {"debian": "sudo poweroff"}}, "a cure for each distribution"),
        ({"colour": "red"}, "colour: "),
        ({"fixtures": {"match": ["the disk is well"]}}, "does not match the fixture"),
        ({"fixtures": {"match": ["disk on fire"], "no_match": ["no disk on fire"]}}, "matches, and should not"),
    ],
)
def test_a_users_rule_that_cannot_be_used_is_refused_with_the_reason(folder, change, said):
    (folder / "fire.yaml").write_text(yaml.safe_dump({**_OWN, **change}))
    with pytest.raises(Refused) as refused:
        rules.all_rules()
    assert refused.value.refusal == "rule-invalid"
    assert said in str(refused.value)
    assert "fire.yaml" in str(refused.value)


@pytest.mark.parametrize("text", ["id: [", "- a list", "\0\1", "a: b: c", "", "x" * 300_000])
def test_a_file_that_is_no_rule_is_refused(folder, text):
    (folder / "fire.yaml").write_text(text)
    with pytest.raises(Refused, match=r"fire\.yaml cannot be used"):
        rules.all_rules()
