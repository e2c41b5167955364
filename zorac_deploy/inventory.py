"""Read Ansible's inventories: the hosts, their profiles, and how to reach them."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
import yaml

from zorac_deploy import content, inventory_cache, profiles
from zorac_deploy.errors import InventoryError, UnknownProfile

_ROOT_GROUP = "gpu_servers"
# The characters that --host accepts: no pattern or template of Ansible, no option of ssh.
_HOST = re.compile(r"[A-Za-z0-9_][\w.-]*|[0-9A-Fa-f:.]+(%[\w.-]+)?", re.ASCII)
# The user's Ansible settings that apply: how the inventory is parsed, and where Ansible stores files.
_ANSIBLE_KEPT = ("ANSIBLE_VAULT_", "ANSIBLE_INVENTORY_", "ANSIBLE_COLLECTIONS_", "ANSIBLE_HOME")
_USER = re.compile(r"[A-Za-z0-9_][\w.@\\+$-]*", re.ASCII)

# Ansible takes 30 s for five million values.
_MOST_VALUES = 1_000_000

_Groups = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Target:
    """A host and how to reach it.

    Attributes:
        name: Its name in the inventory.
        profile: The group under gpu_servers that it belongs to.
        address: Its name or address for SSH.
        port: The port of its sshd; None is SSH's own default.
        user: The user to log in as; None is SSH's own default.
        key: The private key file to offer; None is SSH's own choice.
        ssh_options: Further options for ssh.
        local: Whether it is this machine.
        models: The directory on it for all models.
    """

    name: str
    profile: str
    address: str
    port: int | None = None
    user: str | None = None
    key: str | None = None
    ssh_options: tuple[str, ...] = ()
    local: bool = False
    models: str = "/var/lib/zorac-deploy/models"


@dataclass(frozen=True)
class Inventory:
    """The content of the inventory files.

    Attributes:
        sources: The files in the order in which they are read: ours first, so that the user's values override them.
        targets: The hosts by name.
        profiles: The available profiles, including the user's own.
        variables: The variables of each host, as Ansible merges them, with templates not rendered.
    """

    sources: tuple[Path, ...]
    targets: Mapping[str, Target] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    variables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def target(self, name: str | None) -> Target:
        """The host `name`; without a name, the only host.

        Raises:
            InventoryError: The host does not exist, or several exist.
        """
        names = ", ".join(sorted(self.targets)) or "none"
        if name is None:
            if len(self.targets) == 1:
                return next(iter(self.targets.values()))
            raise InventoryError(
                f"no host named. The inventory has: {names}. "
                "Name one of them, or a new one with --host USER@ADDRESS --profile PROFILE."
            )
        if name not in self.targets:
            raise InventoryError(
                f"the inventory has no host {name}. It has: {names}. "
                "Name one of them, another inventory with --inventory FILE, or the host with --host USER@ADDRESS."
            )
        return self.targets[name]


def shipped_profiles() -> list[str]:
    """The names of the profiles that zorac-deploy ships."""
    tree = content.data(content.profiles())
    return list(tree[_ROOT_GROUP]["children"])


def one_host(address: str, profile: str) -> str:
    """The text of an inventory with one host, for ``--host USER@ADDRESS[:PORT]``.

    Raises:
        UnknownProfile: `profile` does not exist.
        InventoryError: `address` has another form.
    """
    if profile not in shipped_profiles():
        raise UnknownProfile(f"unknown profile {profile}. Choose one of: {', '.join(shipped_profiles())}.")
    user, _, place = address.rpartition("@")
    bracketed = re.fullmatch(r"\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\](?::(\w+))?", place, re.ASCII)
    if bracketed:
        host, port = bracketed[1], bracketed[2] or ""
    else:
        host, _, port = place.partition(":") if place.count(":") == 1 else (place, "", "")
    if (
        not _HOST.fullmatch(host)
        or ("@" in address and not _USER.fullmatch(user))
        or (port and not (port.isascii() and port.isdecimal()))
    ):
        raise InventoryError(
            f"{address!r} is not a host. Write it as user@address or user@address:port, IPv6 as user@[address]:port."
        )
    ssh: dict[str, object] = {"ansible_host": host}
    if host == "localhost":
        ssh = {"ansible_connection": "local"}
    if user:
        ssh["ansible_user"] = user
    if port:
        ssh["ansible_port"] = int(port)
    # Ansible takes a host of this name for the controller, even where a tunnel leads to another machine.
    name = "loopback" if host in ("127.0.0.1", "::1") else host
    return as_data({profile: {"hosts": {name: ssh}}})


def as_data(variables: Mapping[str, object]) -> str:
    """Serialize `variables` as YAML in which Ansible sees no templates; `--extra-vars` accepts it, too."""
    return yaml.dump(_data(variables), Dumper=_Dumper, default_flow_style=True, width=sys.maxsize, sort_keys=False)


def _data(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _data(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_data(item) for item in value]
    # only texts with braces: Ansible makes a number of !unsafe "0"
    return _Tagged("!unsafe", value) if isinstance(value, str) and "{" in value else value


def read(sources: Sequence[Path]) -> Inventory:
    """Read the profiles and then `sources`.

    Raises:
        InventoryError: A source is missing or cannot be read, or a host has no profile.
        Refused: A host has an invalid setting.
    """
    try:
        return _read(sources)
    except RecursionError:
        nested = "an inventory, or a file of variables beside it, nests lists or mappings too deeply"
        raise InventoryError(f"{nested}. Remove the innermost ones.") from None


def _read(sources: Sequence[Path]) -> Inventory:
    for source in sources:
        _require_readable(source)
    everything = (_shipped(), *(source.absolute() for source in sources))
    groups, hostvars = _ansible_inventory(everything)
    targets: dict[str, Target] = {}
    known = _below(groups, _ROOT_GROUP)
    for profile in known:
        for name in groups.get(profile, {}).get("hosts", ()):
            if name in targets:
                raise InventoryError(
                    f"{name} is in two profiles: {targets[name].profile} and {profile}. Remove it from one."
                )
            variables = _plain(hostvars.get(name, {}))
            profiles.check(name, variables)
            targets[name] = _target(name, profile, variables)
    strays = sorted(set(_members(groups, "all")) - set(targets))
    if strays:
        raise UnknownProfile(
            f"{', '.join(strays)} has no profile. Put it in one of these groups of the inventory: {', '.join(known)}."
        )
    return Inventory(everything, targets, tuple(known), {name: _plain(hostvars[name]) for name in targets})


def environment() -> dict[str, str]:
    """The environment for Ansible's programs: the user's own, without their settings of Ansible's output.

    A callback plugin, a verbosity or Python's warnings would change the output that we parse.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONWARNINGS" and (not name.startswith("ANSIBLE_") or name.startswith(_ANSIBLE_KEPT))
    }
    return inherited | {"ANSIBLE_CONFIG": str(content.ansible_config())}


def shipped_variables() -> list[Mapping[str, Any]]:
    """The variables of our own profiles and their parent groups, a mapping for each."""
    return [content.data(path) for path in sorted((content.profiles().parent / "group_vars").glob("*.yml"))]


def _shipped() -> Path:
    """Our profiles as one file with their variables.

    Ansible ranks a ``group_vars`` directory above the group variables of any inventory file. There, our values would
    override the user's.
    """
    tree = content.data(content.profiles())
    known = [name for top, holds in tree.items() for name in (top, *holds["children"])]
    sources = {name: content.profiles().parent / "group_vars" / f"{name}.yml" for name in known}
    read = b"\0".join(path.read_bytes() for path in (content.profiles(), *sources.values()))
    file = platformdirs.user_cache_path("zorac-deploy") / f"profiles-{hashlib.sha256(read).hexdigest()[:12]}.yml"
    if not file.is_file():
        shipped = tree | {name: {**tree.get(name, {}), "vars": content.data(path)} for name, path in sources.items()}
        text = yaml.safe_dump(shipped, sort_keys=False)
        scratch = file.with_suffix(f".{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_text(text, encoding="utf-8")
            scratch.replace(file)
        except OSError as error:
            raise InventoryError(
                f"cannot write {file}: {error.strerror}. Set XDG_CACHE_HOME to a writable directory."
            ) from None
    return file


def switched(inventory: Inventory, name: str, profile: str) -> str:
    """The text of an inventory in which the host `name` has the profile `profile`, and all else is as in `inventory`.

    Ansible cannot remove a host from a group by reading another file, so this is the whole inventory, from Ansible.

    Raises:
        UnknownProfile: The profile does not exist.
    """
    if profile not in inventory.profiles:
        raise UnknownProfile(f"unknown profile {profile}. Choose one of: {', '.join(inventory.profiles)}.")
    groups, hostvars = _ansible_inventory(inventory.sources, "--export")
    tree: dict[str, dict[str, object]] = {"all": {"hosts": hostvars}}
    for group, holds in groups.items():
        hosts = set(holds.get("hosts", ())) - ({name} if group in inventory.profiles else set())
        if group == profile:
            hosts.add(name)
        tree.setdefault(group, {}).update(
            {"children": dict.fromkeys(holds.get("children", ())), "vars": holds.get("vars", {})}
        )
        if group != "all":
            tree[group]["hosts"] = dict.fromkeys(sorted(hosts))
    return yaml.dump(_sealed(tree), Dumper=_Dumper)


# How ansible-inventory prints values with Ansible's own tags.
_TAGS = {"__ansible_vault": "!vault", "__ansible_unsafe": "!unsafe"}


@dataclass(frozen=True)
class _Tagged:
    """A text with a tag: Ansible decrypts it, or does not render it as a template."""

    tag: str
    text: str


class _Dumper(yaml.SafeDumper):
    """Writes tagged texts as Ansible reads them."""


_Dumper.add_representer(
    _Tagged,
    # A block does not preserve every text, such as one with a leading space. Ansible never folds a vault.
    lambda dumper, value: dumper.represent_scalar(value.tag, value.text, style="|" if value.tag == "!vault" else '"'),
)


def _sealed(value: object) -> object:
    """Restore the tags that ansible-inventory prints as mappings."""
    if isinstance(value, dict):
        for shown, tag in _TAGS.items():
            if shown in value:
                return _Tagged(tag, value[shown])
        return {name: _sealed(item) for name, item in value.items()}
    return [_sealed(item) for item in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """Replace what ansible-inventory prints for unsafe texts by the texts."""
    if isinstance(value, dict):
        unsafe = value.get("__ansible_unsafe")
        return unsafe if unsafe is not None else {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _below(groups: _Groups, name: str) -> list[str]:
    """The groups under the group `name`, without duplicates, parents first."""
    below = list(groups.get(name, {}).get("children", ()))
    for group in below:
        below += [child for child in groups.get(group, {}).get("children", ()) if child not in below]
    return below


def _members(groups: _Groups, name: str) -> list[str]:
    group = groups.get(name, {})
    hosts = list(group.get("hosts", ()))
    for child in group.get("children", ()):
        hosts += _members(groups, child)
    return hosts


def _require_readable(source: Path) -> None:
    try:
        exists = source.exists()
    except OSError:  # a name that no file can have
        exists = False
    if not exists:
        raise InventoryError(f"inventory not found: {source}. Name another with --inventory FILE.")
    if not source.is_file() and not source.is_dir():
        raise InventoryError(f"the inventory {source} is a pipe or a device. Name a file with --inventory FILE.")
    if source.suffix in (".yml", ".yaml"):
        try:
            # Not loaded: the values may have Ansible's own tags, such as !vault.
            tree = yaml.compose(source.read_text(encoding="utf-8"), yaml.SafeLoader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InventoryError(f"the inventory {source} is not YAML: {error}") from None
        if _size(tree, {}) > _MOST_VALUES:
            raise InventoryError(
                f"the inventory {source} has more than {_MOST_VALUES:,} values with its aliases expanded. "
                "Use fewer aliases."
            )
        if not isinstance(tree, yaml.MappingNode):
            raise InventoryError(
                f"the inventory {source} has no groups. It needs a profile, its hosts, and each host's address, "
                "as in:\nheadless:\n  hosts:\n    tower:\n      ansible_host: 192.0.2.10"
            )


def _size(node: yaml.Node | None, known: dict[int, int]) -> int:
    """The number of values in `node` with every alias replaced by its value; `known` caches the counts."""
    if id(node) not in known:
        known[id(node)] = 0  # an alias of its own parent
        children = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else []
        children += node.value if isinstance(node, yaml.SequenceNode) else []
        known[id(node)] = 1 + sum(_size(part, known) for part in children)
    return known[id(node)]


def _ansible_inventory(sources: Sequence[Path], *options: str) -> tuple[_Groups, dict[str, dict[str, object]]]:
    """The groups, and the variables of each host, from ansible-inventory."""
    command = [str(Path(sysconfig.get_path("scripts")) / "ansible-inventory"), "--list", *options]
    for source in sources:
        command += ["--inventory", str(source)]
    variables = environment()

    def ask() -> dict[str, Any]:
        # Not our standard input: ssh leaves it non-blocking, which Ansible refuses.
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=variables
        )
        if done.returncode != 0:
            raise InventoryError(f"Ansible cannot read the inventory:\n{done.stderr.strip()[-1500:]}")
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    listing = inventory_cache.listing(sources, options, variables, ask)
    hostvars = listing.pop("_meta")["hostvars"]
    return listing, hostvars


def _target(name: str, profile: str, variables: Mapping[str, object]) -> Target:
    def text(key: str) -> str | None:
        value = variables.get(key)
        if isinstance(value, str) and "{{" in value:
            raise InventoryError(
                f"{key} of {name} is a template ({value}). Write the value itself: it is needed before Ansible runs."
            )
        if isinstance(value, (bool, list, dict)):
            raise InventoryError(f"{key} of {name} is {value!r}. Set a text.")
        return None if value is None else str(value)

    def arguments(key: str) -> list[str]:
        try:
            return shlex.split(text(key) or "")
        except ValueError as fault:
            raise InventoryError(f"{key} of {name} cannot be read: {fault}. It is {text(key)}") from None

    port = text("ansible_port")
    if port is not None and not port.isdecimal():
        raise InventoryError(f"ansible_port of {name} is {port}. Set it to a number.")
    return Target(
        name=name,
        profile=profile,
        address=text("ansible_host") or name,
        port=int(port) if port else None,
        user=text("ansible_user"),
        key=text("ansible_ssh_private_key_file"),
        ssh_options=(*arguments("ansible_ssh_common_args"), *arguments("ansible_ssh_extra_args")),
        local=text("ansible_connection") == "local",
        models=text("model_weights_root") or Target.models,
    )
