"""Read a log of any size and format, and find causes in it."""

from __future__ import annotations

import codecs
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from zorac_deploy.doctor.rules import Linear
from zorac_deploy.errors import Refused
from zorac_host import diagnosis

_CHUNK_BYTES = 2**18
# A longer line is read in overlapping pieces, so that no message is split.
_LINE_LIMIT = 2**14
_OVERLAP = 1000
_NARROW, _JOINED_LIMIT = 30, 1000
_COLOURS = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-Z\\-_]|(?:#033|\^\[)\[[0-9;]*m"
)
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_KNOWN_BINARY = {
    b"\x1f\x8b": ("compressed with gzip", "zcat"),
    b"\xfd7zXZ": ("compressed with xz", "xzcat"),
    b"\x28\xb5\x2f\xfd": ("compressed with zstd", "zstdcat"),
    b"BZh": ("compressed with bzip2", "bzcat"),
    b"LPKSHHRH": ("a journal of systemd", "journalctl --no-pager --file"),
}
_TEXT_CONTROLS = "\t\n\r\x0b\x0c\x1b\x08\x07\0"


def diagnose(path: str, rules: Iterable[diagnosis.Rule], system: str = "") -> list[diagnosis.Finding]:
    """The findings in the log `path`, the likeliest cause first; `-` is standard input.

    Raises:
        Refused: It cannot be read, is empty, or is not text.
    """
    matcher = diagnosis.Diagnosis(rules, Linear(), system)
    if path == "-":
        _read(sys.stdin.buffer, "standard input", matcher)
    else:
        try:
            kind = Path(path).stat().st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
                raise _refusal(path, "a folder" if stat.S_ISDIR(kind) else "no file but a device or a socket", "a log")
            with Path(path).open("rb") as file:
                _read(file, path, matcher)
        except OSError as error:
            raise _refusal(path, f"unreadable: {error.strerror}", "a log that you may read") from None
    return matcher.findings()


def _read(file: BinaryIO, name: str, matcher: diagnosis.Diagnosis) -> None:
    """Feed every line to `matcher`."""
    first = _first_block(file)
    if not first.strip(b"\0 \t\r\n"):
        raise _refusal(name, "empty" if not first.strip() else "no text but zeros", "a log")
    encoding = _encoding(first, name)
    width, joined = _NARROW, ""
    for line in _lines(_texts(file, first, encoding)):
        known = matcher.feed(line)
        if 0 < len(joined) < _JOINED_LIMIT and not known:
            matcher.feed(joined + line)
        # Lines copied from a terminal may be wrapped: then the continued lines are as long as the longest. A log with
        # many endless lines has lines of one length for another reason.
        width = max(width, len(line))
        if known or len(line) < width:
            joined = ""
        elif len(joined) < _JOINED_LIMIT:
            joined += line


def _first_block(file: BinaryIO) -> bytes:
    """The first chunk, in full size if the file has as much: reading a pipe returns less at a time."""
    parts, size = [], 0
    while size < _CHUNK_BYTES and (part := file.read(_CHUNK_BYTES - size)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _encoding(first: bytes, name: str) -> str:
    """The encoding of a text that begins with `first`.

    Raises:
        Refused: It is not text.
    """
    for magic, (kind, tool) in _KNOWN_BINARY.items():
        if first.startswith(magic):
            raise _refusal(name, kind, f"plain text: {tool} FILE | zorac-deploy doctor --log -")
    for mark, encoding in _MARKS.items():
        if first.startswith(mark):
            return encoding
    encoding = "utf-8"
    for candidate, zeros in (("utf-16-le", first[1::2]), ("utf-16-be", first[::2])):
        if zeros.count(0) > 0.6 * len(zeros) and first.count(0) < 0.6 * len(first):
            encoding = candidate
    text = first.decode(encoding, errors="replace")
    strange = sum(text.count(chr(code)) for code in range(32) if chr(code) not in _TEXT_CONTROLS)
    # A crash leaves zeros in a log, and Latin-1 has some bytes that are not UTF-8. More of them are not text.
    if strange + text.count("\ufffd") > 0.1 * len(text) or text.count("\0") > 0.5 * len(text):
        raise _refusal(name, "binary", "a log in plain text, such as of: journalctl -u vllm -b --no-pager")
    return encoding


def _texts(file: BinaryIO, first: bytes, encoding: str) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    chunk = first
    while chunk:
        yield decoder.decode(chunk)
        chunk = file.read(_CHUNK_BYTES)
    yield decoder.decode(b"", final=True)


def _lines(texts: Iterable[str]) -> Iterator[str]:
    """The lines of `texts`, without colors. Text overwritten after a carriage return is a line, too."""
    rest = ""
    for text in texts:
        *lines, rest = (rest + text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        for line in lines:
            yield from _pieces(_plain(line))
        if len(rest) > _LINE_LIMIT:
            *pieces, rest = _pieces(_plain(rest))
            yield from pieces
    if rest:
        yield _plain(rest)


def _plain(line: str) -> str:
    if "\x1b" in line or "#033[" in line or "^[[" in line:
        line = _COLOURS.sub("", line)
    return line.replace("\0", "") if "\0" in line else line


def _pieces(line: str) -> Iterator[str]:
    for start in range(0, max(len(line) - _OVERLAP, 1), _LINE_LIMIT - _OVERLAP):
        yield line[start : start + _LINE_LIMIT]


def _refusal(name: str, state: str, needed: str) -> Refused:
    return Refused(f"{name} is {state}, and doctor needs {needed}.", "log-unreadable")
