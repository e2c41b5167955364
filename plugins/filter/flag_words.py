"""Ansible filter: convert flags to command line arguments."""

import json
from collections.abc import Callable, Mapping


def flag_words(flags: Mapping[str, object]) -> list[str]:
    """The flags as arguments, sorted by name, so that the same settings give the same generation.

    A flag that is null or false is omitted, one that is true has no value, and a list or a mapping is JSON.
    """
    arguments = []
    for name, value in sorted(flags.items()):
        if value is None or value is False:
            continue
        arguments.append(f"--{name.replace('_', '-')}")
        if value is not True:
            arguments.append(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    return arguments


class FilterModule:
    """The filter by name."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """The filters of this file."""
        return {"flag_words": flag_words}
