"""`zorac-deploy tunnel`."""

import time

import click

from zorac_deploy import deployment
from zorac_deploy.cli.common import collect_options, host_options, output, session
from zorac_deploy.errors import HostUnreachable

_LOOK_SECONDS = 2


@click.command()
@host_options
@click.option("-p", "--port", type=click.IntRange(1, 65535), help="Port on this machine. Default: the endpoint's.")
def tunnel(port: int | None, **host: object) -> None:
    """Open a tunnel to HOST's endpoint.

    It forwards the endpoint to localhost, prints the URL, and stays open until Ctrl-C. If the endpoint listens on the
    host's loopback address, the settings of client-config are for this tunnel.

    \b
    Examples:
      zorac-deploy tunnel tower
      zorac-deploy tunnel tower --port 9000
    """
    with session(collect_options(host)) as opened:
        served = deployment.read(opened.connection)
        with opened.connection.forward(served.port, served.listen, port or served.port) as local_port:
            if opened.connection.target.local:
                output.print(f"{opened.name} is this machine and needs no tunnel: {served.url}/v1")
                return
            url = f"http://localhost:{local_port}/v1"
            try:
                output.print(f"{url} forwards to {served.model} on {opened.name}. Ctrl-C closes the tunnel.")
                while opened.connection.connected():
                    time.sleep(_LOOK_SECONDS)
            except KeyboardInterrupt:
                output.print("Tunnel closed.")
                return
        raise HostUnreachable(f"the connection to {opened.name} was lost. Re-run the command to open it again.")
