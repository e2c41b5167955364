"""`zorac-deploy status`."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

import click
from rich.padding import Padding
from rich.table import Table

from zorac_deploy import deployment
from zorac_deploy.cli.common import collect_options, errors, host_options, json_option, output, print_result, session
from zorac_deploy.cli.terminal import marked
from zorac_deploy.errors import SmokeFailed

# A part of the engine's memory, its name in a plan, and its name in the engine's log.
_PARTS = (
    ("weights", "weights_gib", "weights_gib"),
    ("activation", "activation_gib", "activation_gib"),
    ("CUDA graphs", "graphs_gib", "graphs_gib"),
    ("outside PyTorch", "overhead_gib", "non_torch_gib"),
    ("KV cache", "kv_gib", "kv_gib"),
    ("KV tokens", "kv_tokens", "kv_tokens"),
    ("full contexts", "max_concurrency", "max_concurrency"),
)


@click.command()
@host_options
@json_option()
def status(as_json: bool, **host: object) -> None:
    """Show what HOST runs and its health.

    The exit code is 0 only if HOST is healthy. The engine's memory is shown as planned, and as the engine logged it at
    its last start.

    \b
    Example:
      zorac-deploy status tower --json
    """
    with session(collect_options(host), check=False) as opened:
        deployed = deployment.read(opened.connection)
    if as_json:
        print_result(deployed.summary())
    else:
        _show(deployed)
        if deployed.not_serving:
            errors.print(deployed.not_serving)
    if not deployed.healthy:
        sys.exit(SmokeFailed.exit_code)


def _show(deployed: deployment.Deployment) -> None:
    since = f" since {time.strftime('%Y-%m-%d %H:%M:%S %Z', time.localtime(deployed.since))}" if deployed.since else ""
    health = "[green]healthy[/]" if deployed.healthy else "[red]not healthy[/]"
    restarts = f"{deployed.restarts} restart{'s' * (deployed.restarts != 1)}"
    output.print(marked("[bold]{}[/]: " + health + ", {}{}, {}", deployed.host, deployed.state, since, restarts))
    rows = {
        "profile": deployed.profile,
        "generation": str(deployed.generation),
        "model": f"{deployed.model} ({deployed.model_path})",
        "context": f"{deployed.max_model_len} tokens" if deployed.max_model_len else "the model's limit",
        "engine": deployed.engine,
        "endpoint": f"{deployed.url}/v1",
        "at boot": "starts" if deployed.enabled else "does not start",
    }
    if deployed.logged.get("kernels"):
        rows["kernel"] = ", ".join(deployed.logged["kernels"])
    if deployed.logged.get("offloaded_layers"):
        on_gpu, everything = deployed.logged["offloaded_layers"]
        rows["layers"] = f"{on_gpu} of {everything} on the GPU"
    if deployed.logged.get("attention_backend"):
        rows["attention"] = deployed.logged["attention_backend"]
    if deployed.activating:
        rows["activating"] = deployed.activating
    if deployed.watchdog:
        rows["watchdog"] = deployed.watchdog
    for name, value in rows.items():
        output.print_row(marked("  {:<11} ", name), value)
    table = _memory(deployed.plan.get("predicted") or {}, deployed.logged)
    if table.row_count:
        output.print()
        output.print(Padding(table, (0, 0, 0, 2), expand=False))


def _memory(predicted: Mapping[str, Any], logged: Mapping[str, Any]) -> Table:
    """The parts of the engine's memory, as predicted (if they were) and as the engine logged them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("memory")
    columns = {**({"planned": predicted} if predicted else {}), "logged": logged}
    for name in columns:
        table.add_column(name, justify="right")
    for part, in_plan, in_log in _PARTS:
        values = [_value(in_plan if column is predicted else in_log, column) for column in columns.values()]
        if any(values):
            table.add_row(part, *values)
    return table


def _value(name: str, column: Mapping[str, Any]) -> str:
    value = column.get(name)
    if value is None:
        return ""
    if name.endswith("_gib"):
        return f"{value:.2f} GiB"
    return f"{value:,}" if name.endswith("_tokens") else f"{value:.2f}"
