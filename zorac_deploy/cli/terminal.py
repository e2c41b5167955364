"""The terminal: the one place where text goes out, and where what is in it is made harmless.

Most of that text is not ours: a model's reply, an engine's error, names of models and hosts. It may hold control
characters, with which a terminal can be told to hide, to rewrite or to answer something; and it is never rich's markup.
"""

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# C0 but for tab and newline, C1, what changes the direction of writing, and what cannot be encoded.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def clean(text: str) -> str:
    """`text` without what a terminal does not show but obeys."""
    return _CONTROL.sub("", text)


class Terminal(Console):
    """A console that takes no text for markup or emoji, and lets no control character out but rich's own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, highlight=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of `renderable`; rich's own controls are those that are marked as such."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=clean(segment.text))


class _Held:
    """A value in a template of ours: rich reads as many letters of another kind in its place."""

    LETTER = "\ue000"

    def __init__(self, value: object, letters: list[str]) -> None:
        self._value, self._letters = clean(value) if isinstance(value, str) else value, letters

    def __format__(self, how: str) -> str:
        text = clean(format(self._value, how))
        self._letters += text
        return self.LETTER * len(text)


def marked(template: str, *values: object) -> Text:
    """The markup `template`, which is ours, with `values`, which need not be, in the place of its braces."""
    letters: list[str] = []
    text = Text.from_markup(template.format(*(_Held(value, letters) for value in values)), emoji=False)
    each = iter(letters)
    text.plain = "".join(next(each) if letter == _Held.LETTER else letter for letter in text.plain)
    return text
