"""A cache of ansible-inventory's output: running it takes longer than the rest of `status`.

A cached output is used only if everything that ansible-inventory reads is unchanged, byte for byte. With a script, a
plugin or a vault, nothing is cached. An output with a possible secret is not cached either.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import platformdirs

from zorac_deploy import __version__, content

# Either makes the output depend on more than the files: on a plugin's settings, or on a vault's password.
_NOT_STATIC = re.compile(rb"\bplugin\b|!vault|\$ANSIBLE_VAULT")
_SECRET_NAME = re.compile(
    r"api_?key|token(?!s|i)|passw|passphrase|(^|_)(pass|pwd?)($|_)|secret|vault|credential|private_key(?!_file)", re.I
)
_SECRET_VALUE = re.compile(r"\bhf_\w{10}|\bsk-\w{10}|PRIVATE KEY|\bsshpass\b|://[^/\s]*@")
_VARIABLE_FOLDERS = ("group_vars", "host_vars")
_PLUGIN_FOLDERS = ("inventory_plugins", "vars_plugins")
_SYSTEM_PLUGINS = (Path("~/.ansible/plugins"), Path("/usr/share/ansible/plugins"))
_FILES_LIMIT = 500
_BYTES_LIMIT = 4 * 2**20
_STORED = 20


class _Unknown(Exception):
    """The inputs of the output cannot be determined."""


def listing(
    sources: Sequence[Path], options: Sequence[str], environment: Mapping[str, str], ask: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The output of `ask`, or its cached output for the same inputs.

    Args:
        sources: The inventories.
        options: The options of ansible-inventory that change the answer.
        environment: The environment for ansible-inventory.
        ask: Calls ansible-inventory.
    """
    key = _key(sources, options, environment)
    if key and (stored := _read(key)) is not None:
        return stored
    answer = ask()
    # A file that changed meanwhile may have been read before or after the change.
    if key and not _looks_secret(answer) and key == _key(sources, options, environment):
        _write(key, answer)
    return answer


def _key(sources: Sequence[Path], options: Sequence[str], environment: Mapping[str, str]) -> str:
    """The digest of all inputs of the output; empty if they cannot be determined."""
    try:
        folder = Path.cwd()  # Ansible takes it for the playbook's directory
        _require_no_plugins(folder, environment)
        ansible = importlib.util.find_spec("ansible")
        if ansible is None or ansible.origin is None:
            raise _Unknown
        everything = [
            [__version__, sys.version, ansible.origin, _digest(Path(ansible.origin).with_name("release.py"))],
            [_digest(Path(__file__)), _digest(content.ansible_config())],
            list(options),
            [[source.name, _static(source), _variables(source.absolute().parent)] for source in sources],
            _variables(folder),
        ]
    except (OSError, _Unknown):
        return ""
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()


def _require_no_plugins(folder: Path, environment: Mapping[str, str]) -> None:
    configured = any(name.startswith("ANSIBLE_") and name != "ANSIBLE_CONFIG" for name in environment)
    folders = [*(path.expanduser() for path in _SYSTEM_PLUGINS), *(folder / name for name in _PLUGIN_FOLDERS)]
    if configured or any(folder.exists() for folder in folders):
        raise _Unknown


def _variables(folder: Path) -> list[list[str]]:
    """The variable files beside an inventory, each with its digest."""
    digests: list[list[str]] = []
    for name in _VARIABLE_FOLDERS:
        for path in _files(folder / name):
            digests.append([str(path.relative_to(folder)), _static(path)])
            if len(digests) > _FILES_LIMIT:
                raise _Unknown
    return digests


def _files(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        folders.sort()
        if len(Path(parent).parts) - len(folder.parts) > 8:  # a link to a parent
            raise _Unknown
        yield from (Path(parent) / name for name in sorted(names))


def _raise(fault: OSError) -> None:
    if not isinstance(fault, FileNotFoundError):
        raise fault


def _static(path: Path) -> str:
    """The digest of a user's file that Ansible reads, and neither runs nor decrypts."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o111 or status.st_size > _BYTES_LIMIT:
        raise _Unknown
    stored = path.read_bytes()
    if stored.startswith(b"#!") or _NOT_STATIC.search(stored):
        raise _Unknown
    return hashlib.sha256(stored).hexdigest()


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _looks_secret(value: object) -> bool:
    if isinstance(value, Mapping):
        return any((_SECRET_NAME.search(str(name)) and item) or _looks_secret(item) for name, item in value.items())
    if isinstance(value, list):
        return any(map(_looks_secret, value))
    return isinstance(value, str) and bool(_SECRET_VALUE.search(value))


def _folder() -> Path:
    return platformdirs.user_cache_path("zorac-deploy") / "inventories"


def _read(key: str) -> dict[str, Any] | None:
    try:
        descriptor = os.open(_folder() / f"{key}.json", os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, encoding="utf-8") as file:
            status = os.fstat(descriptor)
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != 0o600:
                return None
            stored = json.load(file)
    except (OSError, ValueError):
        return None
    return stored if isinstance(stored, dict) and "_meta" in stored else None


def _write(key: str, answer: Mapping[str, Any]) -> None:
    """Store `answer`. A failure is ignored: the next run asks again."""
    folder = _folder()
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        descriptor, made = tempfile.mkstemp(dir=folder)  # with mode 0600
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(answer, file)
        Path(made).replace(folder / f"{key}.json")
        for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime)[:-_STORED]:
            path.unlink(missing_ok=True)
