"""`zorac-deploy logs`."""

import sys

import click

from zorac_deploy import deployment
from zorac_deploy.cli.common import collect_options, host_options, session
from zorac_deploy.cli.terminal import clean


@click.command()
@host_options
@click.option("-f", "--follow", is_flag=True, help="Print new lines as they come, until Ctrl-C.")
@click.option("-n", "--lines", default=100, show_default=True, help="Number of lines to print first.")
def logs(follow: bool, lines: int, **host: object) -> None:
    """Print the engine's journal.

    \b
    Example:
      zorac-deploy logs tower --follow
    """
    with session(collect_options(host)) as opened:
        options = ["--follow"] if follow else []
        units = [f"--unit={unit}" for unit in deployment.UNITS]
        command = ["journalctl", "--no-pager", *units, f"--lines={lines}", *options]
        sys.exit(opened.connection.follow(*command, on_line=lambda line: click.echo(clean(line))))
