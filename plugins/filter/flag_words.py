"""Ansible filter: the words of a command line for flags by name."""

import json
from collections.abc import Callable, Mapping


def flag_words(flags: Mapping[str, object]) -> list[str]:
    """The flags as words, in the order of their names, so that the same settings are the same generation.

    One that is null or false is left out, one that is true has no value, and a list or a mapping is JSON.
    """
    words = []
    for name, value in sorted(flags.items()):
        if value is None or value is False:
            continue
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return words


class FilterModule:
    """The filter by name."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """Every filter of this file."""
        return {"flag_words": flag_words}
