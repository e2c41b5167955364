"""`zorac-deploy status`."""

import sys
import time

import click

from zorac_deploy import deployment
from zorac_deploy.cli.common import host_options, output, print_json, session, words
from zorac_deploy.errors import SmokeFailed


@click.command()
@host_options
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def status(as_json: bool, **host: object) -> None:
    """Show what runs on HOST, in which version, and whether it is healthy. The exit code is 0 only if it is.

    \b
    Example:
      zorac-deploy status tower --json
    """
    with session(words(host)) as opened:
        found = deployment.read(opened.connection)
    if as_json:
        print_json(found.summary())
    else:
        _show(found)
    if not found.healthy:
        sys.exit(SmokeFailed.exit_code)


def _show(found: deployment.Deployment) -> None:
    since = f" since {time.strftime('%Y-%m-%d %H:%M:%S %Z', time.localtime(found.since))}" if found.since else ""
    health = "[green]healthy[/]" if found.healthy else "[red]not healthy[/]"
    output.print(f"[bold]{found.host}[/]: {health}, {found.state}{since}, {found.restarts} restarts")
    rows = {
        "profile": found.profile,
        "generation": str(found.generation),
        "model": f"{found.model} ({found.model_path})",
        "context": f"{found.max_model_len or 'of the model'} tokens",
        "engine": found.engine,
        "endpoint": f"http://{found.listen}:{found.port}/v1",
        "at boot": "starts" if found.enabled else "does not start",
    }
    if found.activating:
        rows["activating"] = found.activating
    if found.watchdog:
        rows["watchdog"] = found.watchdog
    for name, value in rows.items():
        output.print(f"  {name:<11} {value}", soft_wrap=True)
