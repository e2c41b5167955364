"""The command line: words in, words and exit codes out. What a command does is in the modules below."""

import signal
import sys
from typing import Any

import click

from zorac_deploy import __version__
from zorac_deploy.cli import (
    bundle,
    chat,
    client_config,
    down,
    fit,
    generations,
    gpus,
    logs,
    model,
    plan,
    quantize,
    sandbox,
    smoke,
    status,
    switch,
    tunnel,
    up,
)
from zorac_deploy.cli.common import errors
from zorac_deploy.cli.terminal import marked
from zorac_deploy.errors import Interrupted, Refused, ZoracDeployError, exit_code_of


class _Group(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ZoracDeployError as error:
            kind = f" [{error.refusal}]" if isinstance(error, Refused) else ""
            errors.print(marked("[bold red]error{}:[/] {}", kind, error), soft_wrap=True)
            ctx.exit(exit_code_of(error))
        except KeyboardInterrupt:
            errors.print("stopped by you.")
            ctx.exit(Interrupted.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "ZORAC_DEPLOY"})
@click.version_option(__version__, prog_name="zorac-deploy")
def cli() -> None:
    """From a bare Linux box with an NVIDIA GPU to a locked-down vLLM endpoint, with one command.

    \b
    Examples:
      zorac-deploy up --host me@192.168.1.50 --profile headless --model ~/models/Mistral-Small-24B-AWQ
      zorac-deploy status
      zorac-deploy chat -m "What is the capital of France?"

    Every option can be set in the environment: --inventory of any command as ZORAC_DEPLOY_INVENTORY.
    Exit codes are in docs/reference/exit-codes.md.
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


for command in (
    up.up,
    plan.plan,
    quantize.quantize,
    switch.switch,
    generations.generations,
    generations.rollback,
    status.status,
    chat.chat,
    smoke.smoke,
    logs.logs,
    fit.fit,
    client_config.client_config,
    tunnel.tunnel,
    gpus.gpus,
    model.model,
    bundle.bundle,
    down.down,
    sandbox.sandbox,
):
    cli.add_command(command)


def end_cleanly() -> None:
    """Let SIGTERM and SIGHUP end this process as an exception does: locks are let go, temporary folders removed."""

    def leave(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait for that
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores one
            signal.signal(number, leave)


def main() -> None:
    """The entry point of the console script."""
    end_cleanly()
    sys.exit(cli(standalone_mode=True))
