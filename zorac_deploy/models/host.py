"""Manage the models on a host. The host program is sent along: nothing need be deployed."""

import inspect
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zorac_deploy.connection import Connection
from zorac_deploy.errors import ZoracDeployError, refused
from zorac_host import model_store


@dataclass(frozen=True)
class Model:
    """A model on a host.

    Attributes:
        name: What it is called.
        folder: Its directory's name: the model's name, and the first digits of its digest.
        path: The directory.
        format: ``safetensors``, ``gguf`` or ``pickle``; empty if unknown.
        source: The pinned source, which gives the same files again; empty if unknown.
        bytes: The bytes present.
        total: The bytes of the complete model; 0 if unknown.
        partial: Whether it is incomplete.
        fetching: Whether a download is in progress.
        generations: The generations that use it.
    """

    name: str
    folder: str
    path: str
    format: str
    source: str
    bytes: int
    total: int
    partial: bool
    fetching: bool
    generations: Sequence[int]

    def summary(self) -> dict[str, object]:
        """The object that `model list --json` prints."""
        return asdict(self)


@dataclass(frozen=True)
class Verified:
    """The result of comparing a model's files with their SHA-256.

    Attributes:
        folder: The model's directory.
        good: Whether all files are present and undamaged.
        files: The number of files.
        damaged: The damaged files.
        missing: The missing files.
    """

    folder: str
    good: bool
    files: int
    damaged: Sequence[str]
    missing: Sequence[str]


@dataclass(frozen=True)
class Removed:
    """The removed models.

    Attributes:
        folders: The directories' names.
        bytes: The bytes freed.
    """

    folders: Sequence[str]
    bytes: int


def listed(connection: Connection) -> list[Model]:
    """The models on the connection's host, including partial ones."""
    return [Model(**row) for row in _ask(connection, "list")]


def verify(connection: Connection, name: str) -> list[Verified]:
    """Compare the files of the models called `name`, or of all, with their SHA-256.

    Raises:
        Refused: The model does not exist.
    """
    return [Verified(**row) for row in _ask(connection, "verify", *([name] if name else []))]


def remove(connection: Connection, name: str, force: bool) -> Removed:
    """Remove the models called `name`.

    Raises:
        Refused: It does not exist, or a generation uses it and `--force` is not set.
    """
    return Removed(**_ask(connection, "remove", name, *(["--force"] if force else [])))


def clean(connection: Connection) -> Removed:
    """Remove partial downloads, and end those in progress."""
    return Removed(**_ask(connection, "clean"))


def _ask(connection: Connection, *arguments: str) -> Any:
    program = inspect.getsource(model_store)
    done = connection.run("python3", "-c", program, connection.target.models, *arguments)
    if done.returncode == 0:
        return json.loads(done.stdout)
    connection.check()
    complaint = done.stderr.strip()
    message = f"cannot manage the models of {connection.target.name}: {complaint[-500:]}"
    raise refused(done.stdout) or ZoracDeployError(message)
