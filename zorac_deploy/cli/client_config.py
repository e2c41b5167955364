"""`zorac-deploy client-config`."""

import json

import click

from zorac_deploy import client, deployment
from zorac_deploy.cli.common import collect_options, errors, host_options, output, session


@click.command("client-config")
@host_options
@click.option(
    "--write", is_flag=True, help="Write them to Zorac's settings on this machine, even if it uses another server."
)
def client_config(write: bool, **host: object) -> None:
    """Print the client settings for Zorac.

    They fit what HOST serves, in the form of ~/.zorac/config.json. They include the API key.

    \b
    Examples:
      zorac-deploy client-config tower
      zorac-deploy client-config tower --write
    """
    named = collect_options(host)
    with session(named) as opened:
        served = deployment.read(opened.connection)
        tunnel = client.needs_tunnel(opened.connection, served)
        fitting = client.settings(opened.connection, served, deployment.api_key(opened.connection))
    if write:
        output.print(client.write(fitting, always=True))
    else:
        click.echo(json.dumps(fitting, indent=2))
    if tunnel:
        errors.print(
            f"{served.host} listens on its loopback address only. Keep a tunnel open while you use the client: "
            f"zorac-deploy tunnel {named.command_line()}",
        )
