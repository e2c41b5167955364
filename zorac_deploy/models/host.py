"""The models on a host, as the program says that looks after them. It is brought along: nothing need be deployed."""

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
    """One model on a host.

    Attributes:
        name: What it is called.
        folder: Its folder's name: its own, and the first letters of its digest.
        path: That folder.
        format: ``safetensors``, ``gguf`` or ``pickle``; empty if it is not known.
        source: What brings the very same files again; empty if it is not known.
        bytes: What is there of it.
        total: How much that is when all is there; 0 if it is not known.
        partial: Whether it is not whole.
        fetching: Whether it is being fetched.
        generations: The generations that need it.
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
        """What `model list --json` prints."""
        return asdict(self)


@dataclass(frozen=True)
class Verified:
    """What came of comparing a model's files with what they have to be.

    Attributes:
        folder: The model's folder.
        good: Whether all are there, and as they have to be.
        files: How many there are.
        damaged: Those that are not what they have to be.
        missing: Those that are not there.
    """

    folder: str
    good: bool
    files: int
    damaged: Sequence[str]
    missing: Sequence[str]


@dataclass(frozen=True)
class Removed:
    """What was removed.

    Attributes:
        folders: The folders' names.
        bytes: What that gave back.
    """

    folders: Sequence[str]
    bytes: int


def listed(connection: Connection) -> list[Model]:
    """The models on the connection's host, the partial ones among them."""
    return [Model(**each) for each in _ask(connection, "list")]


def verify(connection: Connection, name: str) -> list[Verified]:
    """Compare the files of the models called `name`, or of all, with their SHA-256.

    Raises:
        Refused: There is no such model.
    """
    return [Verified(**each) for each in _ask(connection, "verify", *([name] if name else []))]


def remove(connection: Connection, name: str, force: bool) -> Removed:
    """Remove the models called `name`.

    Raises:
        Refused: There is none, or a generation needs it and it is not forced.
    """
    return Removed(**_ask(connection, "remove", name, *(["--force"] if force else [])))


def clean(connection: Connection) -> Removed:
    """Remove what interrupted fetches left, and end those under way."""
    return Removed(**_ask(connection, "clean"))


def _ask(connection: Connection, *words: str) -> Any:
    program = inspect.getsource(model_store)
    done = connection.run("python3", "-c", program, connection.target.models, *words)
    if done.returncode == 0:
        return json.loads(done.stdout)
    connection.check()
    said = done.stderr.strip()
    message = f"cannot manage the models of {connection.target.name}: {said[-500:]}"
    raise refused(done.stdout) or ZoracDeployError(message)
