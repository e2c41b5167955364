"""`zorac-deploy sandbox`."""

import subprocess
import sys
import time
from typing import get_args

import click

from zorac_deploy.cli.common import json_option, output, print_result
from zorac_deploy.cli.terminal import marked
from zorac_deploy.sandbox import host, image, model

_NAME = click.argument("name", default="demo")


@click.group()
def sandbox() -> None:
    """Manage sandbox hosts on this machine.

    A sandbox is a Debian host with systemd and SSH, to try zorac-deploy without a real host. It needs root.

    \b
    Example:
      zorac-deploy sandbox up demo
      zorac-deploy sandbox model
      zorac-deploy up demo --inventory "$(zorac-deploy sandbox inventory demo)"
    """


@sandbox.command("up")
@_NAME
@click.option("--distribution", type=click.Choice(list(image.RELEASES)), default="debian12", show_default=True)
@click.option(
    "--network",
    type=click.Choice(["shared", "isolated"]),
    default="shared",
    show_default=True,
    help="shared: this machine's network. isolated: a network of its own without access to others.",
)
@click.option("--mirror", metavar="URL", help="Debian archive to build from. Default: this machine's.")
def sandbox_up(name: str, distribution: str, network: host.Network, mirror: str | None) -> None:
    """Boot the sandbox NAME (default: demo)."""
    began = time.monotonic()
    with output.status(marked("Boot {} (the first boot builds an image: about 30 s)", name)):
        made = host.up(name, distribution, network, mirror)
    output.print(
        f"{made.name}: {made.distribution} answers on {made.address}:{made.port}, {time.monotonic() - began:.1f} s"
    )
    output.print(f"inventory: {made.inventory}")


@sandbox.command("down")
@_NAME
@click.option("--all", "everything", is_flag=True, help="Remove every sandbox.")
def sandbox_down(name: str, everything: bool) -> None:
    """Remove the sandbox NAME (default: demo)."""
    for sandbox_name in [made.name for made in host.listed()] if everything else [name]:
        output.print(f"{sandbox_name}: {'removed' if host.down(sandbox_name) else 'does not exist'}")


@sandbox.command("list")
@json_option()
def sandbox_list(as_json: bool) -> None:
    """List the sandboxes."""
    if as_json:
        print_result({"sandboxes": [made.summary() for made in host.listed()]})
        return
    for made in host.listed():
        state = "running" if made.running else "stopped"
        output.print(f"{made.name:<16} {state:<8} {made.distribution} {made.network:<9} {made.address}:{made.port}")


@sandbox.command("shell")
@_NAME
def sandbox_shell(name: str) -> None:
    """Open a shell on NAME (default: demo)."""
    sys.exit(subprocess.run(host.ssh_command(host.find(name)), check=False).returncode)


@sandbox.command("reset")
@_NAME
def sandbox_reset(name: str) -> None:
    """Power-cycle the sandbox NAME (default: demo)."""
    began = time.monotonic()
    host.reset(name)
    output.print(f"{name}: answers again, {time.monotonic() - began:.1f} s")


@sandbox.command("inventory")
@_NAME
def sandbox_inventory(name: str) -> None:
    """Print the inventory's path (default: demo)."""
    click.echo(host.find(name).inventory)


@sandbox.command("model")
@click.option("--format", "kind", type=click.Choice(get_args(model.Format)), default="safetensors", show_default=True)
def sandbox_model(kind: model.Format) -> None:
    """Create the small model for sandboxes.

    SmolLM2-135M-Instruct takes 260 MB and a minute; as GGUF, 98 MB and a few seconds.
    """
    began = time.monotonic()
    with output.status("Create SmolLM2-135M-Instruct"):
        folder = model.ensure(kind)
    output.print(f"model: {folder}, {time.monotonic() - began:.1f} s")
