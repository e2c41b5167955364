"""plugins/filter/unit_text.py: a process gets exactly the values that were given.

Parsed here as systemd's manual pages describe it; tests/host/test_units.py uses systemd itself.
"""

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.unit_values import names, unit_text, values


def words(line):
    """The arguments of a line: quotes and backslashes are removed, and a specifier is an error."""
    found, word, quoted, escaped = [], None, False, False
    for sign in line:
        if escaped:
            assert sign in '\\"'
            word, escaped = word + sign, False
        elif sign == "\\":
            assert quoted
            escaped = True
        elif sign == '"':
            word, quoted = word or "", not quoted
        elif sign == " " and not quoted:
            found, word = ([*found, word] if word is not None else found), None
        else:
            word = (word or "") + sign
    assert not quoted
    assert not escaped
    found = [*found, word] if word is not None else found
    assert not any("%" in each.replace("%%", "") for each in found)
    return [each.replace("%%", "%") for each in found]


@given(name=names, value=values)
def test_a_variable_keeps_its_value(name, value):
    assert words(unit_text.unit_word(f"{name}={value}")) == [f"{name}={value}"]


@given(st.lists(values))
def test_a_command_keeps_its_arguments_and_expands_nothing(arguments):
    line = unit_text.unit_command(["/opt/a b/50%", *arguments])
    program, *found = words(line)
    assert program == "/opt/a b/50%"
    assert not any("$" in each.replace("$$", "") for each in found)
    assert [each.replace("$$", "$") for each in found] == arguments
    assert " ; " not in f"{line} "


@given(values)
def test_a_text_is_one_line(value):
    assert unit_text.unit_text(value).splitlines() in ([value.replace("%", "%%")], [])


@given(st.text())
def test_any_value_is_one_line_or_refused(value):
    try:
        line = unit_text.unit_word(value)
    except AnsibleFilterError:
        assert unit_text.unit_faults({"x": value})
    else:
        assert len(line.splitlines()) == 1


@pytest.mark.parametrize("code", [0x00, 0x09, 0x0A, 0x0D, 0x1B, 0x7F, 0x85, 0x2028, 0xD800, 0xFDD0, 0xFFFE, 0x1FFFF])
def test_a_character_that_a_unit_cannot_hold_is_named(code):
    value = f"a{chr(code)}b"
    (fault,) = unit_text.unit_faults({"vllm_environment": {"A": value}})
    assert fault == f"vllm_environment.A has the character U+{code:04X}, which a systemd unit cannot hold. Remove it."
    for write in (unit_text.unit_text, unit_text.unit_word, lambda text: unit_text.unit_command(["/bin/true", text])):
        with pytest.raises(AnsibleFilterError, match=f"U\\+{code:04X}"):
            write(value)


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A-B", "Ä", "A\nB", "A\n", "A%"])
def test_a_wrong_name_is_refused(name):
    faults = unit_text.unit_faults({"vllm_environment": {name: "x"}})
    assert any("but the name of a variable consists of" in fault and "Rename it." in fault for fault in faults)
    assert all(fault.isprintable() for fault in faults)


@pytest.mark.parametrize("name", ["", "a b", "--a", "a: 1\nb", "a="])
def test_a_wrong_flag_is_refused(name):
    assert unit_text.unit_faults({"vllm_service_extra_flags": {name: 1}})


@pytest.mark.parametrize("place", ["@GENERATION@", "@CREDENTIALS@"])
def test_the_directorys_placeholder_is_refused(place):
    (fault,) = unit_text.unit_faults({"llama_cpp_flags": {"alias": f"x{place}"}})
    assert fault == f"llama_cpp_flags.alias has {place}, which is reserved for a directory. Remove it."


def test_values_are_found_at_any_depth():
    nested = {"vllm_service_flags": {"override": {"a": [{"b": "\n"}]}}, "devices": ["/dev/\n"], "port": 1, "none": None}
    assert [fault.split()[0] for fault in unit_text.unit_faults(nested)] == [
        "vllm_service_flags.override.a.b",
        "devices",
    ]


def test_usual_values_are_accepted():
    usual = {
        "vllm_environment": {"VLLM_CPU_KVCACHE_SPACE": 1, "A": '{"a": "%$ä😀"}'},
        "x_flags": {"dtype": "auto", "a.b-c": True},
    }
    assert unit_text.unit_faults(usual) == []
