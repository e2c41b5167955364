"""Parse a model source: a hub's repository, a web server's directory, or a local path."""

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from zorac_deploy.errors import Refused

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WRITE = "Write hf://ORG/NAME, hf://ORG/NAME@REVISION/FILE.gguf, https://SERVER/FOLDER/ or a local directory."


@dataclass(frozen=True)
class Hub:
    """A repository of a Hugging Face hub.

    Attributes:
        repo: Its name, such as ``org/name``.
        revision: A branch, a tag or a commit; empty for the main branch.
        file: The requested GGUF file; empty for the whole model.
    """

    repo: str
    revision: str = ""
    file: str = ""

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit."""
        return bool(_COMMIT.fullmatch(self.revision))

    @property
    def name(self) -> str:
        """The model's name."""
        return self.repo.partition("/")[2]

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{self.repo}{revision}{'/' if self.file else ''}{self.file}"


@dataclass(frozen=True)
class Web:
    """A directory of a web server, with a ``manifest.json`` that lists its files, their sizes and their SHA-256.

    Attributes:
        url: The directory, ending in a slash.
        file: The requested GGUF file; empty for the whole model.
    """

    url: str
    file: str = ""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.url.rstrip("/").rpartition("/")[2]

    def __str__(self) -> str:
        return self.url + self.file


def parse(text: str) -> Hub | Web | Path:
    """Parse the source `text`.

    Raises:
        Refused: It is not valid, or not a source that can be downloaded from.
    """
    if "$" in text or not text.isprintable():
        raise Refused(
            f"{text!r} has '$' or a control character; in Ansible '$' begins a variable. Rename the model. {_WRITE}",
            "model-unsafe",
        )
    scheme = text.partition("://")[0] if "://" in text else ""
    if scheme == "hf" or text.startswith(("https://huggingface.co/", "https://hf.co/")):
        return _hub(text)
    if scheme in ("http", "https"):
        return _web(text)
    if scheme:
        raise Refused(f"unsupported scheme {scheme}: {text}. {_WRITE}", "settings-invalid")
    if not text.strip():
        raise Refused(
            f"no model named. Name one with --model SOURCE, or set model_weights_source. {_WRITE}", "model-missing"
        )
    return local_path(text)


def local_path(text: str | Path) -> Path:
    """The local path `text`, with ``~`` replaced by the user's home directory.

    Raises:
        Refused: The user does not exist.
    """
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # raised by pathlib
        raise Refused(
            f"{text}: this user does not exist on this machine. Give the full path.", "settings-invalid"
        ) from None


def local_name(path: Path) -> str:
    """The model's name for the directory `path`: in a hub's cache, the repository's name instead of the commit."""
    cache = path.parent.parent.name
    if path.parent.name == "snapshots" and cache.startswith("models--"):
        return cache.rpartition("--")[2]
    return path.name


def _hub(text: str) -> Hub:
    from huggingface_hub import parse_hf_uri  # here: the import is slow, and a directory does not need it
    from huggingface_hub.errors import HfUriError

    try:
        uri = parse_hf_uri(text)
    except HfUriError as fault:
        raise Refused(f"{text} is not a model: {fault.msg} {_WRITE}", "settings-invalid") from None
    if uri.type != "model":
        raise Refused(f"{text} is a {uri.type}, not a model. {_WRITE}", "settings-invalid")
    _require_file(text, uri.path_in_repo)
    return Hub(uri.id, uri.revision or "", uri.path_in_repo)


def _web(text: str) -> Web:
    try:
        parts = urlsplit(text)
    except ValueError as fault:
        raise Refused(f"{text} is not an address: {fault}. {_WRITE}", "settings-invalid") from None
    if not parts.hostname or parts.query or parts.fragment or parts.password:
        raise Refused(f"{text} is not the address of a directory. {_WRITE}", "settings-invalid")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise Refused(
            f"{text}: http does not protect the files from changes on the way. Use https.", "settings-invalid"
        )
    folder, _, file = text.rpartition("/") if text.endswith(".gguf") else (text.rstrip("/"), "", "")
    _require_file(text, file)
    return Web(f"{folder}/", file)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require_file(text: str, file: str) -> None:
    if file and (not file.endswith(".gguf") or ".." in PurePosixPath(file).parts):
        raise Refused(
            f"{text}: only a GGUF file can be used on its own, and {file} is not one. {_WRITE}", "settings-invalid"
        )
