"""The desired state of a host as a document, and what the host answers when it compares itself with it.

Roles fill in the parts they own. The host keeps the document that was applied last, and looks at every part of it when
it is asked, see ``zorac_host.verify``. The kinds are few; a role adds parts, not code.
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
    """What every part has.

    Attributes:
        owner: The role that makes it so, and that heals it.
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
        sha256: The digest of its content; the host fills it in when the role has written the file.
        copy_of: Another path with the same content, from which the host can restore it.
    """

    kind: Literal["file"]
    sha256: _Sha256 | None = None
    copy_of: _Path | None = None


class Folder(_Access):
    """A folder of ours; with `names`, nothing else may be in it."""

    kind: Literal["folder"]
    names: tuple[str, ...] | None = None


class Absent(_Part):
    """A path at which nothing may be."""

    kind: Literal["absent"]
    path: _Path


class Link(_Part):
    """A symbolic link and where it leads."""

    kind: Literal["link"]
    path: _Path
    target: str


class Tree(_Access):
    """A folder with many files, as it was recorded when it was installed.

    Attributes:
        record: The file on the host that lists them. The host makes it where there is none, and fills in the rest.
        record_sha256: Its digest.
        fingerprint: The digest of names, modes, owners, sizes and times.
        files: How many regular files there are.
        bytes: Their size.
        renewed: The folder was installed anew in this run, so that its record is made anew, too.
    """

    kind: Literal["tree"]
    record: _Path
    record_sha256: _Sha256 | None = None
    fingerprint: _Sha256 | None = None
    files: int | None = None
    bytes: int | None = None
    renewed: bool = False


class Package(_Part):
    """Packages of the distribution: installed; in a version of the pattern `version`, if given; held, if `hold`."""

    kind: Literal["package"]
    names: tuple[str, ...]
    version: str | None = None
    hold: bool = False


class Unit(_Part):
    """A unit of systemd.

    Attributes:
        name: With its ending, as in ``vllm.service``.
        path: The file that defines it.
        enabled: Whether it starts at boot; None does not matter.
        active: Whether it has to run now, or must not; None does not matter.
        drop_ins: The files that may change it.
        properties: Settings that have to be in force, as ``systemctl show`` prints them.
    """

    kind: Literal["unit"]
    name: str
    path: _Path | None = None
    enabled: bool | None = None
    active: bool | None = None
    drop_ins: tuple[str, ...] = ()
    properties: dict[str, str] = {}


class User(_Part):
    """A user of the system."""

    kind: Literal["user"]
    name: str
    group: str
    home: str
    shell: str


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
    """An NVIDIA GPU: fields of ``nvidia-smi --query-gpu`` and the values they have to have."""

    kind: Literal["card"]
    uuid: str
    expected: dict[str, str | int | float]


class Generation(_Part):
    """The generation that the host serves, by its number and the digest of its files."""

    kind: Literal["generation"]
    number: int
    digest: str


Part = Annotated[
    File | Folder | Absent | Link | Tree | Package | Unit | User | Kernel | Card | Generation,
    Field(discriminator="kind"),
]


class Document(_Strict):
    """What a host should be.

    Attributes:
        schema_version: The version of this schema.
        host: The host's name in the inventory.
        profile: Its profile.
        inputs: The digest of everything that was asked for, see `inputs`; empty where no shortcut may be taken.
        tool: The version of zorac-deploy that applied it.
        parts: What is looked at, in the order in which the roles made it.
        plan: The memory plan behind the engine's settings.
        machine_id: The machine it was applied to; the host fills it in.
        at: When, in seconds of the Unix epoch; the host fills it in.
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
    """One thing on a host that is not as its document says.

    Attributes:
        owner: The role that heals it.
        kind: The kind of its part.
        part: What is looked at: a path, a unit, a package.
        aspect: What of it differs.
        expected: What the document says.
        found: What is there.
        names: The files concerned, where the part is a folder.
        packages: The Python packages that these files came with.
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
    """Whether the engine gave a real reply: `failure` is empty if it did; it took `seconds`."""

    failure: str
    seconds: float


class Verification(_Strict):
    """What a host answers to ``zorac-host verify``.

    Attributes:
        inputs: The digest of what was applied last; empty if that cannot be relied on.
        unusable: Why the host has no document to compare itself with; empty if it has one.
        tool: The version of zorac-deploy that applied the document.
        at: When it was applied, in seconds of the Unix epoch.
        pending: The activation under way.
        differences: What is not as the document says.
        reply: The engine's reply, if one was asked for.
        status: What ``zorac-host status`` says.
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
