"""Ansible filters that quote values for a systemd unit.

See systemd.syntax(7) for quotes and backslashes, systemd.unit(5) for ``%`` and systemd.service(5) for ``$``.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from ansible.errors import AnsibleFilterError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FLAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
# Control characters, line ends, surrogates and noncharacters: systemd ignores a line with one of them.
_UNFIT = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane << 16 | last) for plane in range(17) for last in (0xFFFE, 0xFFFF))
    + "]"
)
# The placeholder for the generation's directory in its files.
_PLACE = re.compile("@(GENERATION|CREDENTIALS)@")
_PLAIN = re.compile(r"[A-Za-z0-9_@%:,./=$+-]+")


def unit_text(value: object) -> str:
    """Quote the value of a plain setting, such as Description."""
    text = str(value)
    fault = _fault(text)
    if fault:
        raise AnsibleFilterError(f"{text!r} {fault}")
    return text.replace("%", "%%")


def unit_word(value: object) -> str:
    """Quote one argument, if needed."""
    text = unit_text(value)
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unit_command(command: Sequence[object]) -> str:
    """Quote a command line for ExecStart, without variable substitution."""
    program, *arguments = command
    return " ".join([unit_word(program), *(unit_word(str(argument).replace("$", "$$")) for argument in arguments)])


def unit_faults(settings: Mapping[str, object]) -> list[str]:
    """Return a message for each value of `settings` that a unit cannot have.

    Names in a setting that ends in ``environment`` are variables, and in one that ends in ``flags`` flags.
    """
    return list(_faults(settings))


def _faults(settings: Mapping[str, object]) -> Iterator[str]:
    for setting, value in settings.items():
        pattern, needed = (
            (_FLAG, "a flag consists of ASCII letters and digits, with . _ - after the first")
            if setting.endswith("flags")
            else (_NAME, "a variable consists of ASCII letters, digits and _, without a digit first")
        )
        for place, text in _texts(setting, value):
            fault = _fault(text)
            place_name = _PLACE.search(text)
            if fault:
                yield f"{place} {fault}. Remove it."
            if place_name:
                yield f"{place} has {place_name[0]}, which is reserved for a directory. Remove it."
        for name in value if isinstance(value, Mapping) else ():
            if not pattern.fullmatch(str(name)):
                yield f"{setting} has the name {str(name)!r}, but the name of {needed}. Rename it."


def _texts(place: str, value: object) -> Iterator[tuple[str, str]]:
    """Yield every text in `value`, with its path."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(f"{place}.{_shown(str(name))}", item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(place, item)
    else:
        yield place, str(value)


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)


def _fault(text: str) -> str:
    match = _UNFIT.search(text)
    return f"has the character U+{ord(match[0]):04X}, which a systemd unit cannot hold" if match else ""


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """The filters of this file."""
        return {function.__name__: function for function in (unit_text, unit_word, unit_command, unit_faults)}
