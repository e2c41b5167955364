"""The desired state of a host as a document, and the host's answer when it compares itself with it.

Each role writes the parts that it owns. The host stores the document that was applied last, and checks every part on
request, see ``zorac_host.verify``. There are few kinds of parts; a role adds parts, not code.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = 1

_Mode = Annotated[str, Field(pattern=r"^0[0-7]{3}$", description="Permissions in octal, as in 0644.")]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Path = Annotated[str, Field(pattern=r"^/")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Part(_Strict):
    """The fields of every part.

    Attributes:
        owner: The role that creates and restores it.
    """

    owner: str


class _Access(_Part):
    path: _Path
    mode: _Mode | None = None
    user: str | None = None
    group: str | None = None


class File(_Access):
    """A regular file.

    Attributes:
        sha256: The digest of its content; the host adds it when the role has written the file.
        copy_of: A path with the same content, from which the host can restore it.
    """

    kind: Literal["file"]
    sha256: _Sha256 | None = None
    copy_of: _Path | None = None


class Folder(_Access):
    """A directory of ours; with `names`, it has no other entries."""

    kind: Literal["folder"]
    names: tuple[str, ...] | None = None


class Absent(_Part):
    """A path that does not exist."""

    kind: Literal["absent"]
    path: _Path


class Link(_Part):
    """A symbolic link and its target."""

    kind: Literal["link"]
    path: _Path
    target: str


class Tree(_Access):
    """A directory with many files, recorded when it was installed.

    Attributes:
        record: The file on the host that lists them. The host creates it if missing, and adds the other fields.
        record_sha256: Its digest.
        fingerprint: The digest of names, modes, owners, sizes and times.
        files: How many regular files there are.
        bytes: Their size.
        renewed: The directory was reinstalled in this run, so its record is regenerated.
    """

    kind: Literal["tree"]
    record: _Path
    record_sha256: _Sha256 | None = None
    fingerprint: _Sha256 | None = None
    files: int | None = None
    bytes: int | None = None
    renewed: bool = False


class Package(_Part):
    """Packages of the distribution: installed; in a version that matches `version`, if given; held, if `hold`."""

    kind: Literal["package"]
    names: tuple[str, ...]
    version: str | None = None
    hold: bool = False


class Unit(_Part):
    """A systemd unit.

    Attributes:
        name: With its suffix, such as ``vllm.service``.
        path: The file that defines it.
        enabled: Whether it starts at boot; None is not checked.
        active: Whether it runs now; None is not checked.
        drop_ins: The drop-in files that are allowed.
        properties: Settings and their values, as ``systemctl show`` prints them.
    """

    kind: Literal["unit"]
    name: str
    path: _Path | None = None
    enabled: bool | None = None
    active: bool | None = None
    drop_ins: tuple[str, ...] = ()
    properties: dict[str, str] = {}


class User(_Part):
    """A system user; `groups` are those besides its own, and None if any are allowed."""

    kind: Literal["user"]
    name: str
    group: str
    home: str
    shell: str
    groups: tuple[str, ...] | None = None


class Kernel(_Part):
    """The `value` of a kernel `setting`; or the NVIDIA driver's versions: `loaded`, on `disk`, and of its `library`."""

    kind: Literal["kernel"]
    module: str | None = None
    loaded: str | None = None
    disk: str | None = None
    library: str | None = None
    setting: str | None = None
    value: str | None = None


class Card(_Part):
    """An NVIDIA GPU: fields of ``nvidia-smi --query-gpu`` and their values."""

    kind: Literal["card"]
    uuid: str
    expected: dict[str, str | int | float]


class Generation(_Part):
    """The current generation: its number, and the digest of its files."""

    kind: Literal["generation"]
    number: int
    digest: str


Part = Annotated[
    File | Folder | Absent | Link | Tree | Package | Unit | User | Kernel | Card | Generation,
    Field(discriminator="kind"),
]


class Document(_Strict):
    """The desired state of a host.

    Attributes:
        schema_version: The version of this schema.
        host: The host's name in the inventory.
        profile: Its profile.
        inputs: The digest of all inputs, see `inputs`; empty if the roles have to run every time.
        tool: The version of zorac-deploy that applied it.
        parts: The parts, in the order in which the roles create them.
        plan: The memory plan behind the engine's settings.
        machine_id: The machine it was applied to; the host adds it.
        at: When, in seconds of the Unix epoch; the host adds it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    host: str
    profile: str
    inputs: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    tool: str
    parts: tuple[Part, ...]
    plan: dict[str, Any] = {}
    machine_id: str = ""
    at: int | None = None


class Difference(_Strict):
    """A difference between a host and its document.

    Attributes:
        owner: The role that restores it.
        kind: The kind of its part.
        part: The part: a path, a unit, a package.
        aspect: The property that differs.
        expected: The document's value.
        found: The host's value.
        names: The files concerned, if the part is a directory.
        packages: The Python packages that installed these files.
    """

    owner: str
    kind: str
    part: str
    aspect: str
    expected: str
    found: str
    names: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()

    def __str__(self) -> str:
        expected = f", expected {self.expected}" if self.expected else ""
        return f"{self.kind} {self.part}: {self.aspect}: {self.found}{expected}"


class Reply(_Strict):
    """The result of a request to the engine: `failure` is empty if it replied; it took `seconds`."""

    failure: str
    seconds: float


class Verification(_Strict):
    """The answer of ``zorac-host verify``.

    Attributes:
        inputs: The digest of the inputs applied last; empty if unknown.
        unusable: Why the host has no document to compare with; empty if it has one.
        tool: The version of zorac-deploy that applied the document.
        at: When it was applied, in seconds of the Unix epoch.
        pending: The activation in progress.
        differences: The differences from the document.
        reply: The engine's reply, if a request was asked for.
        status: The answer of ``zorac-host status``.
        document: The document, if it was asked for.
    """

    inputs: str = ""
    unusable: str = ""
    tool: str = ""
    at: int | None = None
    pending: dict[str, Any] | None = None
    differences: tuple[Difference, ...] = ()
    reply: Reply | None = None
    status: dict[str, Any] = {}
    document: dict[str, Any] | None = None
