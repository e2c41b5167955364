"""Remove private data from texts and JSON: keys, prompts, addresses, names of hosts and users."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Any

_SECRET_NAMES = re.compile(
    r"(api.?key|token|secret|passw|passphrase|credential|authorization|cookie|sha256)", re.IGNORECASE
)
# Values with a recognisable format.
_SECRETS = (
    re.compile(r"-----BEGIN [A-Z ]+-----.*?(-----END [A-Z ]+-----|\Z)", re.DOTALL),
    re.compile(r"\b(sk|pk|rk|hf|hf_oauth|ghp|gho|ghs|ghr|glpat|xox[abprs]|nvapi|tgp|r8|pypi)[-_][A-Za-z0-9_-]{8,}"),
    re.compile(r"\bgithub_pat_\w{20,}"),
    re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{16}\b"),
    re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"),
    re.compile(r"\bAIza[\w-]{30,}"),
)
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[^\s\"',}]+", re.IGNORECASE)
# NAME=value, "name": "value", --name value: a quoted value is removed completely.
_ASSIGNED = re.compile(
    r"""((?:[\w-]*(?:api[_-]?key|token|secret|passw(?:or)?d|passphrase|credentials?|authorization|cookie))["']?"""
    r"""\s*[:=]\s*|--(?:[\w-]*(?:api-key|token|secret|password))[ =])"""
    r"""(\[[^\]]*\]|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|[^\s,;)}\]]+)""",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(://)[^/\s:@]+(:[^/\s@]*)?@")
# Prompts and replies. vLLM logs a prompt in quotes on one line, with what follows it.
_PROMPT = re.compile(
    r"((?:prompt|output|response|generated text|completion|content|input|text)(?:_text)?[\"']?\s*[:=]\s*)([\"'\[{].*)",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"Received request|Generated response|Added request|messages[\"']?\s*[:=]|prompt_token_ids|[\"']role[\"']\s*:",
    re.IGNORECASE,
)
_TOKENS = re.compile(r"(token_ids[\"']?\s*[:=]\s*)\[[^\]]*\]?")
_MAIL = re.compile(r"\b[\w.+-]+@[\w-]+(\.[\w-]+)+\b")
_MAC = re.compile(r"\b([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\b")
_IPV4 = re.compile(r"(?<![\w.])(\d{1,3}(?:\.\d{1,3}){3})(?![\w.]*\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?::\d{1,5})?(?![\w:])")
_PRIVATE_NAME = re.compile(
    r"\b[\w-]+(?:\.[\w-]+)*\.(?:local|lan|home|internal|intranet|corp|private|localdomain|arpa)\b", re.IGNORECASE
)
_HOME = re.compile(r"(/home/|/Users/)([^/\s:'\"]+)")
_SHORTEST = 3


class Redactor:
    """Replaces private values; the same value by the same mark, so that relations stay visible."""

    def __init__(self, secrets: Iterable[str] = (), hosts: Iterable[str] = (), users: Iterable[str] = ()) -> None:
        """Prepare with the known values.

        Args:
            secrets: Keys and tokens.
            hosts: Names and addresses of hosts.
            users: Names of users.
        """
        self._marks: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        known = [
            *((text, "secret") for text in secrets),
            *((text, "host") for text in hosts),
            *((text, "user") for text in users),
        ]
        self._known: list[tuple[re.Pattern[str], str]] = []
        for text, kind in sorted({(text.strip(), kind) for text, kind in known}, key=lambda pair: -len(pair[0])):
            if len(text) >= _SHORTEST:
                edges = ("", "") if kind == "secret" else (r"(?<![\w])", r"(?![\w])")
                self._known.append(
                    (re.compile(edges[0] + re.escape(text) + edges[1], re.IGNORECASE), self._mark(kind, text))
                )

    def text(self, text: str) -> str:
        """Return `text` without private values."""
        for pattern, mark in self._known:
            text = pattern.sub(mark, text)
        for pattern in _SECRETS:
            text = pattern.sub("<secret>", text)
        return "\n".join(map(self._line, text.split("\n")))

    def data(self, data: Any, name: str = "") -> Any:
        """Return JSON data without private values, including those found by their key."""
        if isinstance(data, Mapping):
            return {self.text(str(key)): self.data(value, str(key)) for key, value in data.items()}
        if isinstance(data, list | tuple):
            return [self.data(value, name) for value in data]
        if isinstance(data, str) and data:
            return "<secret>" if _SECRET_NAMES.search(name) and not data.startswith("/") else self.text(data)
        return data

    def _line(self, line: str) -> str:
        line = _BEARER.sub(r"\1 <secret>", line)
        line = _IN_URL.sub(r"\1<secret>@", line)
        line = _ASSIGNED.sub(r"\1<secret>", line)
        if _ASKED.search(line):
            line = _PROMPT.sub(r"\1<text>", line)
        line = _TOKENS.sub(r"\1[<text>]", line)
        line = _MAIL.sub(lambda hit: self._mark("mail", hit[0]), line)
        line = _HOME.sub(lambda hit: hit[1] + (hit[2] if hit[2].startswith("<") else self._mark("user", hit[2])), line)
        line = _MAC.sub(lambda hit: self._mark("mac", hit[0]), line)
        line = _IPV4.sub(lambda hit: self._address(hit[0]), line)
        line = _IPV6.sub(lambda hit: self._address(hit[0]), line)
        return _PRIVATE_NAME.sub(lambda hit: self._mark("host", hit[0]), line)

    def _address(self, text: str) -> str:
        address = _parsed(text) or _parsed(text.rpartition(":")[0])  # a port may follow
        if address is None:
            return text
        return text if address.is_loopback or address.is_unspecified else self._mark("address", text)

    def _mark(self, kind: str, text: str) -> str:
        key = f"{kind} {text.lower()}"
        if key not in self._marks:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._marks[key] = f"<{kind}-{self._counts[kind]}>"
        return self._marks[key]


def _parsed(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
