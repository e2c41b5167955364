"""The command line: parse arguments, print results, return exit codes. Each command has a module."""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import LazyLoader
from types import ModuleType
from typing import Any

import click

from zorac_deploy import __version__, content
from zorac_deploy.errors import Interrupted, ZoracDeployError, exit_code_of

# The commands, each with its line in `zorac-deploy --help`, which therefore imports no command's module. A module is
# named after its command, except those in _MODULES.
_COMMANDS = {
    "up": "Deploy HOST and verify it with a real reply",
    "plan": "Show what `up` would change, and GPU memory",
    "quantize": "Quantize MODEL on this machine",
    "switch": "Switch HOST to another PROFILE",
    "generations": "List the generations of HOST",
    "rollback": "Roll back to generation N, or the last good",
    "status": "Show what HOST runs and its health",
    "chat": "Chat with the model on HOST",
    "smoke": "Check that HOST answers, for scripts",
    "logs": "Print the engine's journal",
    "doctor": "Find what is wrong, and what cures it",
    "support-bundle": "Collect what a helper needs, without secrets",
    "fit": "Check whether MODEL fits a GPU, without one",
    "client-config": "Print the client settings for Zorac",
    "tunnel": "Open a tunnel to HOST's endpoint",
    "gpus": "Show the NVIDIA GPUs of HOST",
    "model": "Pull, list, verify and remove models",
    "bundle": "Create bundles for hosts without a network",
    "down": "Remove the deployment from HOST",
    "sandbox": "Manage sandbox hosts on this machine",
}
_MODULES = {"rollback": "generations"}


class _Listed(click.Command):
    """A command as a list of commands shows it; its module is imported when it is used."""

    def load(self) -> click.Command:
        """Import the command."""
        attribute = str(self.name).replace("-", "_")
        module = importlib.import_module(f"zorac_deploy.cli.{_MODULES.get(attribute, attribute)}")
        command: click.Command = getattr(module, attribute)
        return command


class _Group(click.Group):
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that `args` begin with."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, _Listed) else command, rest

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ZoracDeployError as error:
            from zorac_deploy.cli.common import print_error

            print_error(ctx, error)
            ctx.exit(exit_code_of(error))
        except KeyboardInterrupt:
            from zorac_deploy.cli.common import print_error

            print_error(ctx, Interrupted("interrupted"))
            ctx.exit(Interrupted.exit_code)


def _print_docs(context: click.Context, _: click.Parameter, requested: bool) -> None:
    if requested and not context.resilient_parsing:
        click.echo(content.root() / "docs")
        context.exit()


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ZORAC_DEPLOY"})
@click.version_option(__version__, prog_name="zorac-deploy")
@click.option(
    "--docs",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_docs,
    help="Print the directory of the documentation and exit.",
)
def cli() -> None:
    """Deploy a locked-down vLLM endpoint to a Linux host with an NVIDIA GPU.

    \b
    Examples:
      zorac-deploy up --host me@192.168.1.50 --profile headless --model ~/models/Mistral-Small-24B-AWQ
      zorac-deploy status
      zorac-deploy chat -m "What is the capital of France?"

    Options can be set in the environment: --inventory of every command as ZORAC_DEPLOY_INVENTORY, others with the
    command's name, as ZORAC_DEPLOY_CHAT_MAX_TOKENS. Exit codes are in reference/exit-codes.md below --docs.
    """


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    Example:
      zorac-deploy completion bash > ~/.local/share/bash-completion/completions/zorac-deploy
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is not None:
        click.echo(kind(cli, {}, "zorac-deploy", "_ZORAC_DEPLOY_COMPLETE").source())


for name, line in _COMMANDS.items():
    cli.add_command(_Listed(name, short_help=line))


class _Later:
    """Delays the import of our modules until an attribute is used: completion needs only the options."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The spec of the module `name`; None leaves it to Python."""
        if not name.startswith("zorac_deploy.") or name.split(".")[1] in ("cli", "errors"):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec and spec.loader:
            spec.loader = LazyLoader(spec.loader)
        return spec


def end_cleanly() -> None:
    """Raise on SIGTERM and SIGHUP, so that locks are released and temporary directories removed."""

    def leave(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second signal ends the process at once
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, leave)


def main() -> None:
    """The entry point of the console script."""
    end_cleanly()
    if "_ZORAC_DEPLOY_COMPLETE" in os.environ:
        sys.meta_path.insert(0, _Later)
    sys.exit(cli(standalone_mode=True))
