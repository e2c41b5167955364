"""`zorac-deploy gpus`."""

from __future__ import annotations

import click

from zorac_deploy import gpus as cards
from zorac_deploy.cli.common import collect_options, host_options, json_option, output, print_result, session
from zorac_deploy.cli.terminal import marked


@click.command()
@host_options
@json_option()
def gpus(as_json: bool, **host: object) -> None:
    """Show the NVIDIA GPUs of HOST.

    Each has its power limit, its memory, and the processes that use it.

    \b
    Example:
      zorac-deploy gpus tower
    """
    with session(collect_options(host)) as opened:
        host_gpus = cards.read(opened.connection)
    if as_json:
        print_result(host_gpus.summary())
        return
    driver = f"driver {host_gpus.driver}" if host_gpus.driver else "no driver loaded"
    count = f"{len(host_gpus.cards)} NVIDIA GPU{'s' * (len(host_gpus.cards) != 1)}"
    output.print(marked("[bold]{}[/]: {}, {}", host_gpus.host, count, driver))
    if host_gpus.error:
        output.print(f"  {host_gpus.error}", style="yellow")
    for card in host_gpus.cards:
        _show(card)


def _show(card: cards.Gpu) -> None:
    output.print(marked("\n[bold]{}[/]  {}", card.address, card.name or "unknown until a driver works"))
    power = card.power_watts
    rows = {
        "uuid": card.uuid,
        "compute": card.compute,
        "memory": f"{card.used_mib} of {card.total_mib} MiB in use" if card.total_mib else None,
        "power limit": f"{power['current']} W ({power['min']} to {power['max']})" if power.get("current") else None,
        "monitor": "connected" if card.monitor else "none",
    }
    for name, value in rows.items():
        if value:
            output.print_row(marked("  {:<12} ", name), value)
    for holder in card.holders:
        used = "?" if holder.used_mib is None else holder.used_mib
        text = f"{used:>6} MiB  {holder.name}, process {holder.pid}" + (f", {holder.unit}" if holder.unit else "")
        output.print_row(marked("  {:<12} ", "used by"), text)
