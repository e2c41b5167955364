"""The digest of everything that decides a host's desired state: equal digests mean equal desired states.

It covers the host's variables as Ansible merges them, before templates are filled in; the files that they name; this
program with its roles, templates and locks; the versions of Ansible and Python; the environment that the roles read.
What a template looks up elsewhere is not covered: such a variable is *impure*, and then there is no digest.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import zorac_host
from zorac_deploy import content

# Template functions whose result depends on the time or the host.
_IMPURE = re.compile(
    r"\b(lookup|query|q)\s*\(|\bnow\s*\(|\brandom\b|\bshuffle\b|\b(ansible_)?hostvars\b|\bansible_(facts|local|env|"
    r"date_time|mem\w*|processor\w*|default_ipv[46]|all_ipv[46]\w*|distribution\w*|kernel\w*|devices|mounts|uptime\w*)\b"
)
_ENVIRONMENT = re.compile(
    r"ANSIBLE_\w+|HF_\w+|(https?|no|all)_proxy|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|PYTHONPATH", re.I
)
# This directory is hashed completely. Of others only the direct entries are: they may be a host's own.
_MODEL = "model_weights_source"
_CONTENT = ("playbooks", "roles", "inventory", "templates", "plugins")
_PATH_LIMIT = 1024
_PACKAGES = ("ansible-core", "huggingface-hub", "jinja2")


@dataclass(frozen=True)
class Inputs:
    """The inputs of the desired state.

    Attributes:
        digest: The digest; empty if a variable is impure.
        impure: The variables whose value may change although their text does not, with the reason.
    """

    digest: str
    impure: tuple[str, ...] = ()


def inputs(
    variables: Mapping[str, object], shipped: Sequence[Mapping[str, object]], extra: Mapping[str, object]
) -> Inputs:
    """The digest of a host's inputs.

    Args:
        variables: The host's variables, as ``ansible-inventory`` lists them.
        shipped: The variables of our own profiles, by group: their templates read the host, which is verified anyway.
        extra: Further inputs: the host's name, its groups, the commit of a moving name such as a branch.
    """
    own = {name: value for name, value in variables.items() if not name.startswith("ansible_")}
    foreign = {
        name: value
        for name, value in own.items()
        if not any(name in group and group[name] == value for group in shipped)
    }
    impure = tuple(sorted(f"{name} uses {lookup}" for name, value in foreign.items() for lookup in _lookups(value)))
    if impure:
        return Inputs("", impure)
    everything = {
        "variables": own,
        "files": _files(own),
        "content": _content(),
        "versions": [sys.version, *(importlib.metadata.version(name) for name in _PACKAGES)],
        "environment": {name: value for name, value in sorted(os.environ.items()) if _ENVIRONMENT.fullmatch(name)},
        "extra": dict(extra),
    }
    text = json.dumps(everything, sort_keys=True, default=str)
    return Inputs(hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest())


def _lookups(value: object) -> Iterator[str]:
    for text in _texts(value):
        if "{{" in text or "{%" in text:
            match = _IMPURE.search(text)
            if match:
                yield match[0].rstrip("( ")


def _texts(value: object) -> Iterator[str]:
    """Yield every text in `value`."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _files(variables: Mapping[str, object]) -> dict[str, object]:
    """The local files that the variables name, with a signature of each."""
    signatures = {}
    for name, value in variables.items():
        for text in _texts(value):
            if 0 < len(text) < _PATH_LIMIT and not set(text) & set("\0\n{}"):
                signatures[text] = _signature(Path(text), recursive=name == _MODEL)
    return {text: signature for text, signature in sorted(signatures.items()) if signature is not None}


def _signature(path: Path, recursive: bool) -> object:
    """Names, sizes and times; of a directory its direct entries, or all if `recursive`. None if it does not exist."""
    try:
        path = path.expanduser()
        status = path.stat()
        if not stat.S_ISDIR(status.st_mode):
            return _file(status)
        below = sorted(path.rglob("*") if recursive else path.iterdir())
        return [[str(entry.relative_to(path)), _file(entry.stat()) if entry.is_file() else ""] for entry in below]
    except (OSError, RuntimeError, ValueError):
        return None


def _file(status: os.stat_result) -> list[int]:
    # a program cannot set ctime: it shows a new content of the same size and mtime
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _content() -> str:
    """The digest of all files of this program."""
    digest = hashlib.sha256()
    packages = [Path(__file__).resolve().parent, Path(zorac_host.__file__).resolve().parent]
    folders = [*packages, *(content.root() / name for name in _CONTENT)]
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(folder)}\0{path.stat().st_mode & 0o111}\0".encode())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
