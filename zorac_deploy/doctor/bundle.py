"""The support bundle: an archive with what a helper needs, without private data; and its diagnosis elsewhere."""

from __future__ import annotations

import getpass
import io
import json
import os
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zorac_deploy import __version__
from zorac_deploy.connection import Connection
from zorac_deploy.doctor.redact import Redactor
from zorac_deploy.doctor.trouble import Trouble
from zorac_deploy.errors import Refused

_LOGS = ("engine_log", "kernel_log")
_LIMIT_BYTES = 32 * 2**20
_README = """What zorac-deploy doctor found on a host, for somebody who helps. Diagnose it with:

    zorac-deploy doctor --bundle FILE

Keys, tokens, prompts, addresses and the names of hosts and users were replaced by marks such as <secret> and <host-1>.
Read it before you give it away: what was never seen before cannot be known.
"""


def redactor(connection: Connection, facts: Mapping[str, Any], secrets: Sequence[str]) -> Redactor:
    """A redactor for `facts` that knows the host and this machine."""
    target, system = connection.target, facts.get("system") or {}
    hosts = [target.name, target.address, str(system.get("hostname", "")), os.uname().nodename]
    users = [target.user or "", getpass.getuser(), *map(str, system.get("users", ()))]
    tokens = [value for name, value in os.environ.items() if "TOKEN" in name or "API_KEY" in name]
    return Redactor(
        [*secrets, *tokens],
        [h for h in hosts if h not in ("localhost", "127.0.0.1")],
        [u for u in users if u != "root"],
    )


def write(path: Path, facts: Mapping[str, Any], troubles: Sequence[Trouble], clean: Redactor) -> None:
    """Write the archive to `path`, readable only by its owner.

    Raises:
        Refused: The file exists, or cannot be written.
    """
    logs = {name: str(facts.get(name) or "") for name in _LOGS}
    rest = {name: value for name, value in facts.items() if name not in logs}
    files = {
        "README.txt": _README,
        "about.json": json.dumps({"tool": __version__, "at": int(time.time())}),
        "facts.json": json.dumps(clean.data(rest), indent=1),
        "findings.json": json.dumps([clean.data(trouble.summary()) for trouble in troubles], indent=1),
        **{f"{name}.txt": clean.text(text) for name, text in logs.items()},
    }
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}. Name another file with --output FILE."
        raise Refused(message, "bundle-unwritable") from None
    with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"support-bundle/{name}")
            content = text.encode(errors="replace")
            entry.size, entry.mtime, entry.mode = len(content), int(time.time()), 0o600
            archive.addfile(entry, io.BytesIO(content))


def read(path: str) -> dict[str, Any]:
    """Read the facts in the archive `path`. Nothing is unpacked to the disk.

    Raises:
        Refused: It is not such an archive.
    """
    texts: dict[str, str] = {}
    try:
        with tarfile.open(path, mode="r:gz") as archive:
            for entry in archive:
                name, file = Path(entry.name).name, archive.extractfile(entry) if entry.isfile() else None
                if file and name in ("facts.json", *(f"{log}.txt" for log in _LOGS)):
                    texts[name] = file.read(_LIMIT_BYTES).decode(errors="replace")
                if archive.offset > 4 * _LIMIT_BYTES:
                    break
        facts = json.loads(texts["facts.json"])
    except (OSError, tarfile.TarError, EOFError, ValueError, KeyError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it holds no facts of a host"
        message = f"{path} is no support bundle: {reason}. Make one with: zorac-deploy support-bundle HOST"
        raise Refused(message, "log-unreadable") from None
    if not isinstance(facts, dict):
        raise Refused(f"{path} is no support bundle: its facts are no mapping.", "log-unreadable")
    return {**facts, **{log: texts.get(f"{log}.txt", "") for log in _LOGS}}
