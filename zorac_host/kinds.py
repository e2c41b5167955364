"""The kinds of parts of a desired state, and how to compare each with the host.

A function compares all parts of its kind at once, so that one command suffices for all, and yields the differences.
It does not know roles: the parts have the expected values.
"""

import fnmatch
import os
import pwd
import re
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from zorac_host import look, nvidia_probe, service, store, tree

Part: TypeAlias = Mapping[str, Any]
# If a directory changed as a whole, the first names suffice.
_NAMED = 20
_RUN_FROM = re.compile(r"\.pth$|(^|/)(site|user)customize\.py$")
_TIMEOUT_SECONDS = 30


@dataclass(frozen=True)
class Difference:
    """A difference from the desired state.

    Attributes:
        owner: The role that restores the part.
        kind: The part's kind.
        part: The part: a path, a unit, a package.
        aspect: The property that differs.
        expected: The desired value.
        found: The host's value.
        names: The files concerned, if the part is a directory.
        packages: The Python packages that installed these files, see `tree.packages`.
    """

    owner: str
    kind: str
    part: str
    aspect: str
    expected: str
    found: str
    names: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """The difference as JSON."""
        return asdict(self)


def files(parts: Sequence[Part], _deep: bool) -> Iterator[Difference]:
    """Compare regular files: mode, owner and content."""
    for part in parts:
        status = _lstat(part["path"])
        if status is None or not stat.S_ISREG(status.st_mode):
            yield differs(part, "type", "file", _type(status))
            continue
        yield from _access(part, status)
        if part.get("sha256"):
            digest = tree.sha256(Path(part["path"]))
            if digest != part["sha256"]:
                yield differs(part, "content", part["sha256"][:12], digest[:12])


def folders(parts: Sequence[Part], _deep: bool) -> Iterator[Difference]:
    """Compare directories of ours: mode and owner, and their entries if no others are allowed."""
    for part in parts:
        status = _lstat(part["path"])
        if status is None or not stat.S_ISDIR(status.st_mode):
            yield differs(part, "type", "folder", _type(status))
            continue
        yield from _access(part, status)
        if part.get("names") is not None:
            expected, found = set(part["names"]), {path.name for path in Path(part["path"]).iterdir()}
            if found - expected:
                yield differs(part, "added", "nothing", _listed(found - expected), sorted(found - expected))
            if expected - found:
                yield differs(part, "missing", _listed(expected - found), "nothing", sorted(expected - found))


def absent(parts: Sequence[Part], _deep: bool) -> Iterator[Difference]:
    """Paths that do not exist."""
    for part in parts:
        status = _lstat(part["path"])
        if status is not None:
            yield differs(part, "type", "nothing", _type(status))


def links(parts: Sequence[Part], _deep: bool) -> Iterator[Difference]:
    """Symbolic links: the target, and that it exists."""
    for part in parts:
        path = Path(part["path"])
        target = str(path.readlink()) if path.is_symlink() else _type(_lstat(str(path)))
        if target != part["target"]:
            yield differs(part, "target", part["target"], target)
        elif not path.exists():
            yield differs(part, "target", part["target"], "the target does not exist")


def trees(parts: Sequence[Part], deep: bool) -> Iterator[Difference]:
    """Directories with many files, compared with the record of their installation."""
    for part in parts:
        folder = Path(part["path"])
        if not folder.is_dir() or folder.is_symlink():
            yield differs(part, "type", "folder", _type(_lstat(str(folder))))
            continue
        yield from _access(part, folder.lstat())
        if "fingerprint" not in part:
            yield differs(part, "record", "made", "missing", packages=[tree.EVERY])
            continue
        by_aspect: dict[str, list[tree.Change]] = {}
        for change in tree.changes(folder, part, deep):
            by_aspect.setdefault(change.aspect, []).append(change)
        for aspect, changes in by_aspect.items():
            names = [change.name for change in changes if change.name]
            # files that run on their own come first
            names.sort(key=lambda name: (not _RUN_FROM.search(name), name))
            first = changes[0]
            expected, found = (first.expected, first.found) if len(changes) == 1 else ("", _listed(names))
            if len(changes) == 1 and first.name:
                found = f"{first.name}: {first.found}"
            # without a record, anything may be damaged
            damaged = [tree.EVERY] if aspect == "record" else tree.packages(folder, names)
            yield differs(part, aspect, expected, found, names, damaged)


def packages(parts: Sequence[Part], _deep: bool) -> Iterator[Difference]:
    """Packages of the distribution: installed, their version, and held."""
    names = [name for part in parts for name in part["names"]]
    fields = "${Package}\t${Version}\t${db:Status-Want}\t${db:Status-Status}\n"
    shown = _output("dpkg-query", "--show", f"--showformat={fields}", *names)
    installed = {}
    for line in shown.splitlines():
        name, version, want, state = line.split("\t")
        if state != "not-installed":
            installed[name] = (version, want, state)
    for part, name in [(group, name) for group in parts for name in group["names"]]:
        version, want, state = installed.get(name, ("", "", "not installed"))
        if state != "installed":
            yield differs(part, "state", "installed", state, label=name)
            continue
        if part.get("version") and not fnmatch.fnmatchcase(version, part["version"]):
            yield differs(part, "version", part["version"], version, label=name)
        if part.get("hold") and want != "hold":
            yield differs(part, "hold", "held", want, label=name)


def units(parts: Sequence[Part], _deep: bool) -> Iterator[Difference]:
    """Units of systemd: enabled, active, their files, and the loaded settings."""
    names = sorted({name for part in parts for name in part.get("properties", {})})
    queried = ["Id", "LoadState", "ActiveState", "FragmentPath", "DropInPaths", "NeedDaemonReload"]
    shown = _output("systemctl", "show", f"--property={','.join(queried + names)}", *(part["name"] for part in parts))
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in shown.split("\n\n")]
    for part, properties in zip(parts, blocks, strict=False):
        yield from _unit(part, properties)
    for part in parts[len(blocks) :]:
        yield differs(part, "state", "known to systemd", "systemctl did not answer")


def _unit(part: Part, properties: Mapping[str, str]) -> Iterator[Difference]:
    if part.get("active") is False and properties.get("ActiveState") in ("inactive", "failed"):
        return
    if properties.get("LoadState") != "loaded":
        yield differs(part, "loaded", "loaded", properties.get("LoadState", "unknown"))
        return
    drop_ins = [path for path in properties.get("DropInPaths", "").split() if f"/{part['name']}.d/" in path]
    if sorted(drop_ins) != sorted(part.get("drop_ins", [])):
        yield differs(part, "drop-ins", _listed(part.get("drop_ins", [])), _listed(drop_ins), drop_ins)
    if part.get("path") and properties.get("FragmentPath") != part["path"]:
        yield differs(part, "unit file", part["path"], properties.get("FragmentPath", ""))
    if properties.get("NeedDaemonReload") == "yes":
        yield differs(part, "daemon-reload", "done", "needed")
    if part.get("enabled") is not None:
        # From the links: the property UnitFileState is the state when systemd loaded the unit.
        expected, found = (
            "enabled" if part["enabled"] else "disabled",
            _output("systemctl", "is-enabled", part["name"]).strip(),
        )
        if found != expected:
            yield differs(part, "at boot", expected, found)
    if part.get("active") is not None and (properties.get("ActiveState") == "active") != part["active"]:
        yield differs(part, "state", "active" if part["active"] else "inactive", properties.get("ActiveState", ""))
    # Drop-ins for several units, as in service.d, may be another program's: only their effect counts.
    others = [path for path in properties.get("DropInPaths", "").split() if path not in drop_ins]
    for name, value in part.get("properties", {}).items():
        if properties.get(name) != value:
            source = f" (look into {_listed(others)})" if others else ""
            yield differs(part, name, value, f"{properties.get(name, '')}{source}")


def users(parts: Sequence[Part], _deep: bool) -> Iterator[Difference]:
    """Users: their groups, home and shell."""
    for part in parts:
        try:
            user = pwd.getpwnam(part["name"])
        except KeyError:
            yield differs(part, "account", "present", "absent")
            continue
        actual = {"group": look.group_name(user.pw_gid), "home": user.pw_dir, "shell": user.pw_shell}
        for aspect, found in actual.items():
            if aspect in part and part[aspect] != found:
                yield differs(part, aspect, part[aspect], found)
        groups = look.other_groups(user)
        if "groups" in part and groups != sorted(part["groups"]):
            yield differs(part, "groups", _listed(part["groups"]), _listed(groups))


def kernel(parts: Sequence[Part], _deep: bool) -> Iterator[Difference]:
    """Kernel settings, and the versions of NVIDIA's module: loaded, on disk, and of its library."""
    driver = nvidia_probe.versions() if any("module" in part for part in parts) else {}
    for part in parts:
        if "setting" in part:
            value = _text(Path("/proc/sys") / part["setting"].replace(".", "/"))
            if value.split() != str(part["value"]).split():
                yield differs(part, "value", str(part["value"]), value or "absent")
            continue
        for aspect, version in driver.items():
            if aspect in part and version != part[aspect]:
                yield differs(part, aspect, part[aspect], version or "none")


def cards(parts: Sequence[Part], _deep: bool) -> Iterator[Difference]:
    """NVIDIA GPUs, by UUID: present, with which driver, power limit and persistence."""
    fields = ("uuid", "name", "memory.total", "driver_version", "power.limit", "persistence_mode")
    shown = _output("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits")
    rows = [dict(zip(fields, map(str.strip, line.split(",")), strict=False)) for line in shown.splitlines()]
    by_uuid = {row["uuid"]: row for row in rows}
    for part in parts:
        card = by_uuid.get(part["uuid"])
        if card is None:
            yield differs(part, "GPU", part["uuid"], _listed(by_uuid) if by_uuid else "nvidia-smi shows no GPU")
            continue
        for aspect, expected in part["expected"].items():
            if not _equal(card.get(aspect, ""), expected):
                yield differs(part, aspect, str(expected), card.get(aspect, ""))


def generations(parts: Sequence[Part], _deep: bool) -> Iterator[Difference]:
    """The current generation: its state, its unit's file, and the running process."""
    for part in parts:
        current = store.current()
        if current is None or current.number != part["number"]:
            yield differs(
                part, "current", f"generation {part['number']}", f"generation {current.number}" if current else "none"
            )
            continue
        if current.manifest.get("digest") != part["digest"]:
            yield differs(part, "digest", part["digest"][:12], str(current.manifest.get("digest"))[:12])
        if store.outcome(current.number).get("state") != "proved":
            yield differs(part, "health check", "passed", store.outcome(current.number).get("state", "never activated"))
        if service.shown(current.unit).get("ActiveState") == "active" and not service.settled(current):
            yield differs(
                part, "running", f"generation {current.number}", f"generation {service.running(current.unit)}"
            )


LOOKS: dict[str, Callable[[Sequence[Part], bool], Iterator[Difference]]] = {
    "file": files,
    "folder": folders,
    "absent": absent,
    "link": links,
    "tree": trees,
    "package": packages,
    "unit": units,
    "user": users,
    "kernel": kernel,
    "card": cards,
    "generation": generations,
}


def named(part: Part) -> str:
    """The part's name for the user."""
    for name in ("path", "name", "setting", "module", "uuid", "number"):
        if name in part and not (name == "path" and part["kind"] == "unit"):
            return str(part[name])
    return str(part["kind"])


def differs(
    part: Part,
    aspect: str,
    expected: str,
    found: str,
    names: Sequence[str] = (),
    packages: Sequence[str] = (),
    label: str = "",
) -> Difference:
    """The difference of `aspect` in `part`, called `label` or by its own name."""
    place = label or named(part)
    return Difference(part["owner"], part["kind"], place, aspect, expected, found, list(names), list(packages))


def _access(part: Part, status: os.stat_result) -> Iterator[Difference]:
    mode = f"{stat.S_IMODE(status.st_mode):04o}"
    if "mode" in part and mode != part["mode"]:
        yield differs(part, "mode", part["mode"], mode)
    for aspect, found in (("user", _user(status.st_uid)), ("group", look.group_name(status.st_gid))):
        if aspect in part and part[aspect] != found:
            yield differs(part, aspect, part[aspect], found)
    if "mode" in part and "system.posix_acl_access" in os.listxattr(part["path"]):
        yield differs(part, "access list", "none", "further users or groups (getfacl shows them)")


def _lstat(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _type(status: os.stat_result | None) -> str:
    if status is None:
        return "nothing"
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "symbolic link"}
    return kinds.get(stat.S_IFMT(status.st_mode), "special file")


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _listed(names: Any) -> str:
    names = [str(name) for name in names]
    suffix = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + suffix if names else "none"


def _equal(found: str, expected: object) -> bool:
    """Whether the values are equal, as numbers if they are: nvidia-smi writes 450.00 for 450."""
    try:
        return float(found) == float(str(expected))
    except ValueError:
        return found == str(expected)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _output(*command: str) -> str:
    """The output of the command; empty if it is not installed or does not end."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
