"""Terminal output. Text from elsewhere is escaped here, and only here.

Most text is not ours: replies of models, errors of engines, names. It may have control characters, which can make a
terminal hide, rewrite or send text. It is also never rich's markup.
"""

import re
from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

# C0 except tab and newline, C1, bidirectional controls, and what cannot be encoded.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# What a line may be broken after: a word, or one character of a script without spaces between words.
_WORD = re.compile(r"\n|[^\S\n]+|[\u2e80-\uffef]|[^\s\u2e80-\uffef]+")
_ENDLESS = 100_000
_NARROWEST = 20


def clean(text: str) -> str:
    """Remove control characters from `text`."""
    return _CONTROL.sub("", text)


class Terminal(Console):
    """A console that takes no text for markup or emoji, and lets no control character out but rich's own.

    On a terminal, lines are broken between words. A pipe or a file has no width: there a line stays one line.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, highlight=False, markup=False, emoji=False)
        self._has_width = "width" in options  # rich takes COLUMNS for a width, of a pipe as well

    @property
    def size(self) -> ConsoleDimensions:
        """The size of the terminal, or the width that was set; otherwise unlimited."""
        size = super().size
        return size if self.is_terminal or self._has_width else size._replace(width=_ENDLESS)

    @size.setter
    def size(self, new_size: tuple[int, int]) -> None:
        self._width, self._height = new_size
        self._has_width = True

    def print_row(self, begin: Text, value: str) -> None:
        """Print `value` after `begin`, and what does not fit into the line below its beginning."""
        lines = Text(clean(value)).wrap(self, max(self.width - begin.cell_len, _NARROWEST))
        for line in lines:
            line.rstrip()
        self.print(begin + Text("\n" + " " * begin.cell_len).join(lines))

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of `renderable`. Only rich's own control segments are marked as such."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=clean(segment.text))


class Stream:
    """Writes text that arrives in pieces. On a terminal, lines are broken between words, so the last word waits."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._column, self._space, self._word = 0, "", ""

    def write(self, piece: str) -> None:
        """Write `piece`."""
        if not self._console.is_terminal:
            self._print(piece)
            return
        *complete, self._word = ["", *_WORD.findall(self._word + clean(piece))]
        for part in complete:
            self._put(part)

    def end(self) -> None:
        """Write what waits, and end the line."""
        self._put(self._word)
        self._print("\n")

    def _put(self, part: str) -> None:
        if part == "\n":
            self._column, self._space = 0, ""
            self._print(part)
        elif part.isspace():
            self._space = part
        elif part:
            width = cell_len(self._space) + cell_len(part)
            if self._column and self._column + width > self._console.width:
                self._print("\n" + part)
                self._column = cell_len(part)
            else:
                self._print(self._space + part)
                self._column += width
            self._space = ""

    def _print(self, text: str) -> None:
        self._console.print(text, end="", soft_wrap=True)


class _Held:
    """A placeholder for a value in our template: rich parses as many harmless letters instead."""

    LETTER = "\ue000"

    def __init__(self, value: object, letters: list[str]) -> None:
        self._value, self._letters = clean(value) if isinstance(value, str) else value, letters

    def __format__(self, how: str) -> str:
        text = clean(format(self._value, how))
        self._letters += text
        return self.LETTER * len(text)


def marked(template: str, *values: object) -> Text:
    """Parse our markup `template`, and insert `values`, which may be any text, for its braces."""
    letters: list[str] = []
    text = Text.from_markup(template.format(*(_Held(value, letters) for value in values)), emoji=False)
    held = iter(letters)
    text.plain = "".join(next(held) if letter == _Held.LETTER else letter for letter in text.plain)
    return text
