"""What the commands share: options that name a host, the connection to it, and output."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import platformdirs

from zorac_deploy import connection, deployment, inventory, scratch
from zorac_deploy.cli import completing
from zorac_deploy.cli.terminal import Terminal, clean, marked
from zorac_deploy.errors import InventoryError, Refused, ZoracDeployError, exit_code_of

if TYPE_CHECKING:
    from zorac_deploy import chat

output = Terminal()
errors = Terminal(stderr=True)

# Of what --json prints. It changes when a name goes or means something else, and not when one is added.
SCHEMA = 1
_AS_JSON = "zorac_deploy.as_json"

_Command = TypeVar("_Command", bound=Callable[..., object])


@dataclass(frozen=True)
class HostOptions:
    """The options that name a host."""

    name: str | None
    sources: tuple[Path, ...]
    address: str | None
    profile: str | None
    ask_become_pass: bool

    def command_line(self) -> str:
        """The same options for another command line."""
        options = [
            ("--host", self.address),
            ("--profile", self.profile),
            *(("--inventory", source) for source in self.sources),
        ]
        named = [str(text) for option, value in options if value for text in (option, value)]
        return shlex.join([*([self.name] if self.name else []), *named, *(["-K"] if self.ask_become_pass else [])])


@dataclass(frozen=True)
class Session:
    """A host and the connection to it."""

    inventory: inventory.Inventory
    connection: connection.Connection

    @property
    def name(self) -> str:
        """The host's name."""
        return self.connection.target.name


def host_options(command: _Command) -> _Command:
    """Add the options that name a host to a command. `session` takes their values."""
    return _named_by(
        click.argument("host_name", metavar="[HOST]", required=False, shell_complete=completing.hosts), command
    )


def several_hosts_options(command: _Command) -> _Command:
    """Add the options that name one or several hosts to a command. `sessions` takes their values."""
    return _named_by(
        click.argument("host_names", metavar="[HOST]...", nargs=-1, shell_complete=completing.hosts), command
    )


def _named_by(argument: Callable[[_Command], _Command], command: _Command) -> _Command:
    for decorate in reversed(
        (
            argument,
            click.option(
                "-i",
                "--inventory",
                "sources",
                type=click.Path(path_type=Path),
                multiple=True,
                envvar="ZORAC_DEPLOY_INVENTORY",
                help="Ansible inventory with your hosts, in a group per profile. Default: ./inventory.yml, or "
                "inventory.yml in zorac-deploy's configuration directory.",
            ),
            click.option(
                "--host", "address", metavar="USER@ADDRESS[:PORT]", help="Use a host that is in no inventory."
            ),
            click.option(
                "--profile",
                metavar="NAME",
                shell_complete=completing.shipped_profiles,
                help="Profile for --host: headless, display, cpu.",
            ),
            click.option("-K", "--ask-become-pass", is_flag=True, help="Ask for the host's sudo password."),
        )
    ):
        command = decorate(command)
    return command


class Tokens(click.ParamType[str | int]):
    """A number of tokens, or one keyword that stands for a value."""

    def __init__(self, keyword: str, value: str | int) -> None:
        self.name = f"{keyword}|N"
        self._keyword, self._value = keyword, value

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        """The number, or the keyword's value."""
        return self._value if value == self._keyword else int(click.IntRange(min=1).convert(value, param, ctx))


context_option = click.option(
    "--context",
    type=Tokens("max", "auto"),
    help="Context length in tokens: a number, or max for the longest that fits. The next run without --context uses "
    "the profile's value.",
)
replace_unit_option = click.option(
    "--replace-unit", is_flag=True, help="Replace a vllm.service that zorac-deploy did not create. `down` restores it."
)

model_option = click.option(
    "--model",
    metavar="SOURCE",
    help="hf://ORG/NAME[@REVISION][/FILE.gguf], https://SERVER/FOLDER/, or a local directory or GGUF file.",
)


def collect_options(options: Mapping[str, object]) -> HostOptions:
    """Collect the keyword arguments that `host_options` passes to a command."""
    return HostOptions(
        name=options.get("host_name"),  # type: ignore[arg-type]
        sources=options["sources"],  # type: ignore[arg-type]
        address=options["address"],  # type: ignore[arg-type]
        profile=options["profile"],  # type: ignore[arg-type]
        ask_become_pass=bool(options["ask_become_pass"]),
    )


@contextlib.contextmanager
def session(
    options: HostOptions, variables: Mapping[str, object] | None = None, *, check: bool = True
) -> Iterator[Session]:
    """Find the host, connect to it, and require that login and sudo work.

    Args:
        options: The options that name the host.
        variables: The command line's variables for this host; they override the inventories.
        check: Test the connection now. A later call of the host program tests it as well.

    Raises:
        InventoryError: The options do not name one host.
        HostUnreachable: The connection failed; also its subclasses.
    """
    with sessions(options, (options.name,), variables) as (opened,):
        if check:
            opened.connection.check()
        yield opened


@contextlib.contextmanager
def sessions(
    options: HostOptions, names: Sequence[str | None], variables: Mapping[str, object] | None = None
) -> Iterator[list[Session]]:
    """Find the hosts `names`, each with its own connection, not opened yet. The inventory is read once.

    Args:
        options: The options that name the inventory.
        names: Their names, without duplicates; None is the only host.
        variables: The command line's variables for all of them; they override the inventories.

    Raises:
        InventoryError: The inventories have no such host.
    """
    with scratch.folder() as folder, contextlib.ExitStack() as stack:
        loaded = inventory.read(sources_of(options, folder))
        targets = [loaded.target(name) for name in names]
        if variables:
            overrides = folder / "command-line.yml"
            hosts = {target.name: variables for target in targets}
            overrides.write_text(inventory.as_data({"all": {"hosts": hosts}}), encoding="utf-8")
            merged = {name: {**loaded.variables.get(name, {}), **variables} for name in hosts}
            loaded = replace(loaded, sources=(*loaded.sources, overrides), variables=merged)
        password = None
        if options.ask_become_pass:
            asking = f"sudo password on {', '.join(target.name for target in targets)}"
            password = click.prompt(clean(asking), hide_input=True)
        yield [Session(loaded, stack.enter_context(connection.opened(target, password))) for target in targets]


def sources_of(options: HostOptions, scratch: Path) -> list[Path]:
    """The inventories that `options` mean, or a new one in `scratch` for a host that is in none.

    Raises:
        InventoryError: They mean none.
    """
    if options.address:
        if options.name or options.sources:
            raise InventoryError(
                "--host is for a host that is in no inventory. Remove HOST and --inventory, or --host."
            )
        if not options.profile:
            choices = ", ".join(inventory.shipped_profiles())
            raise InventoryError(
                f"--host needs --profile. Choose one of: {choices}. For a server with an NVIDIA GPU: headless."
            )
        inventory_file = scratch / "one-host.yml"
        inventory_file.write_text(inventory.one_host(options.address, options.profile))
        return [inventory_file]
    if options.profile:
        raise InventoryError("--profile works only with --host. A host in an inventory has the profile of its group.")
    if options.sources:
        return list(options.sources)
    usual = [Path("inventory.yml"), platformdirs.user_config_path("zorac-deploy") / "inventory.yml"]
    for source in usual:
        if source.is_file():
            return [source]
    raise InventoryError(
        f"no host named, and no inventory found at {' or '.join(map(str, usual))}. Name a host with "
        "--host USER@ADDRESS --profile headless, or an inventory with --inventory FILE."
    )


@contextlib.contextmanager
def reached(session: Session) -> Iterator[tuple[deployment.Deployment, chat.Endpoint]]:
    """The deployment on the session's host, and its endpoint as reached from this machine."""
    served = deployment.read(session.connection)
    with session.connection.forward(served.port, served.listen) as port:
        yield served, deployment.endpoint(session.connection, served, port)


def json_option(text: str = "Print the result as JSON.") -> Callable[[_Command], _Command]:
    """The option --json of a command: its outcome, and an error too, are JSON on standard output."""

    def remember(context: click.Context, _: click.Parameter, value: bool) -> bool:
        context.meta[_AS_JSON] = value
        return value

    return click.option("--json", "as_json", is_flag=True, callback=remember, help=text)


def print_result(result: Mapping[str, object]) -> None:
    """Print the outcome of a command for machines."""
    click.echo(json.dumps({"schema": SCHEMA, **result}, indent=2))
    if context := click.get_current_context(silent=True):
        context.meta[_AS_JSON] = False  # an error that follows is told by the exit code


def print_error(context: click.Context, error: ZoracDeployError) -> None:
    """Print `error` for people on standard error, and under --json for machines on standard output, too."""
    refusal = error.refusal if isinstance(error, Refused) else None
    errors.print(marked("[bold red]error{}:[/] {}", f" [{refusal}]" if refusal else "", error))
    if context.meta.get(_AS_JSON):
        details = {"id": refusal, "exit_code": exit_code_of(error), "message": str(error)}
        click.echo(json.dumps({"schema": SCHEMA, "error": details}, indent=2))
