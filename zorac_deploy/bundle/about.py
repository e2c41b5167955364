"""The description of a bundle, ``bundle.json``. The parts beside it, joined, are one plain tar file.

``cat part-*
 tar --list`` lists the content without zorac-deploy.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from zorac_deploy.errors import Refused

ABOUT = "bundle.json"
CHECKSUM = "bundle.json.sha256"
# The directories inside the tar file.
MODEL, WHEELS, SOURCES, PACKAGES = "model", "wheels", "sources", "packages"
# The model's name is also a directory name on both machines.
MODEL_NAME = r"\w[\w .+-]*"

# Called with the step and its object.
OnStep = Callable[[str, str], None]


def _inside(path: str) -> str:
    top, *names = path.split("/")
    if top not in (MODEL, WHEELS, SOURCES, PACKAGES) or not names or {"", ".", ".."} & set(names):
        raise ValueError("it leads out of the bundle")
    return path


_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class System:
    """A distribution that hosts may run.

    Attributes:
        python: The version of its ``/usr/bin/python3``, for which the wheels are built.
        glibc: The minor version of its C library 2.x, the newest that the wheels may require.
    """

    python: str
    glibc: int


SYSTEMS = {"debian12": System("3.11", 36), "debian13": System("3.13", 41), "ubuntu24.04": System("3.12", 39)}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Strict):
    """A file of the bundle, in bytes."""

    name: Annotated[str, Field(pattern=r"^part-\d{4,}$")]
    size: int
    sha256: _Sha256


class File(_Strict):
    """A file inside the tar file."""

    path: Annotated[str, AfterValidator(_inside)]
    size: int
    sha256: _Sha256


class Engine(_Strict):
    """The engine of the wheels: name and digest of its lock, and the version of uv that installs it."""

    lock: str
    lock_sha256: _Sha256
    uv: str


class Model(_Strict):
    """The model, with the digest that ``model_weights`` gives it."""

    name: Annotated[str, Field(pattern=f"^{MODEL_NAME}$")]
    source: str
    digest: _Sha256
    format: str


_Package = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]*$")]


class About(_Strict):
    """The content of a bundle.

    Attributes:
        format: The version of this format.
        system: The distribution that wheels and packages are for, a key of `SYSTEMS`.
        python: The version of Python that the wheels are for.
        packages: The names of the Debian packages inside.
        absent: What the bundle lacks although a user might expect it, a sentence each.
    """

    format: Literal[1] = 1
    system: str
    python: str
    engine: Engine
    model: Model
    packages: tuple[_Package, ...]
    absent: tuple[str, ...]
    parts: tuple[Part, ...]
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """The size of all parts."""
        return sum(part.size for part in self.parts)


def read(folder: Path) -> About:
    """Read the description in `folder`. The parts are not read.

    Raises:
        Refused: The directory is not a bundle, or its description was altered.
    """
    try:
        text = (folder / ABOUT).read_bytes()
        checksum = (folder / CHECKSUM).read_text().split()
    except OSError as error:
        raise damaged(f"{folder} has no bundle: {error}.") from None
    if checksum[:1] != [hashlib.sha256(text).hexdigest()]:
        raise damaged(f"{folder / ABOUT} does not match {CHECKSUM}: it was altered.")
    try:
        return About.model_validate_json(text)
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise damaged(
            f"cannot read {folder / ABOUT} ({where}: {first['msg']}). It may be of another version."
        ) from None


def write(folder: Path, description: About) -> None:
    """Write the description and its checksum, in the format of ``sha256sum --check``."""
    text = json.dumps(description.model_dump(), indent=1) + "\n"
    (folder / ABOUT).write_text(text)
    (folder / CHECKSUM).write_text(f"{digest(folder)}  {ABOUT}\n")


def digest(folder: Path) -> str:
    """The SHA-256 of the bundle's description, which has the digest of every part."""
    return hashlib.sha256((folder / ABOUT).read_bytes()).hexdigest()


def damaged(problem: str) -> Refused:
    """The refusal of an incomplete or damaged bundle."""
    return Refused(f"{problem} Copy the bundle again from its source.", "bundle-damaged")
