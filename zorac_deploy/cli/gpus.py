"""`zorac-deploy gpus`."""

from __future__ import annotations

import click

from zorac_deploy import gpus as cards
from zorac_deploy.cli.common import host_options, json_option, output, print_result, session, words
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
    with session(words(host)) as opened:
        found = cards.read(opened.connection)
    if as_json:
        print_result(found.summary())
        return
    driver = f"driver {found.driver}" if found.driver else "no driver loaded"
    count = f"{len(found.cards)} NVIDIA GPU{'s' * (len(found.cards) != 1)}"
    output.print(marked("[bold]{}[/]: {}, {}", found.host, count, driver))
    if found.error:
        output.print(f"  {found.error}", style="yellow")
    for card in found.cards:
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
        held = "?" if holder.used_mib is None else holder.used_mib
        text = f"{held:>6} MiB  {holder.name}, process {holder.pid}" + (f", {holder.unit}" if holder.unit else "")
        output.print_row(marked("  {:<12} ", "used by"), text)
