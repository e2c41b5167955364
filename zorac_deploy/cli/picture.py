"""A plan as a bar of the GPU's memory, divided into its parts, with a summary."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from zorac_deploy.cli.terminal import marked

_WIDTH = 64
# Different characters too: a pipe or a log has no colors.
_PARTS = (
    ("weights", "weights_gib", "█", "blue"),
    ("activation", "activation_gib", "▓", "magenta"),
    ("overhead", "overhead_gib", "▚", "yellow"),
    ("KV cache", "kv_gib", "▒", "green"),
)
_COLOURS = {"fits": "green", "borderline": "yellow", "refused": "red"}


def show(output: Console, plan: Mapping[str, Any]) -> None:
    """Print the plan with the summary `plan`, as `fit --json` prints it."""
    if plan["kv_gib"] is not None and plan["activation_gib"] is not None:
        _bar(output, plan)
    elif plan["kv_gib"] is not None:
        output.print(f"  weights {plan['weights_gib']:.2f} GiB, KV cache {plan['kv_gib']:.2f} GiB")
    colour = _COLOURS[plan["verdict"]]
    output.print(marked("[bold " + colour + "]{}[/]: {}", plan["verdict"], plan["reason"]))
    if plan["kv_tokens"]:
        output.print(
            f"  {plan['kv_tokens']:,} tokens of KV cache ({plan['kv_bytes_per_token'] / 1024:.1f} KiB each): "
            f"{plan['max_concurrency']:.1f} requests of {plan['max_model_len']:,} tokens at once. "
            f"The longest context that fits: {plan['largest_max_model_len']:,}.",
        )
    for note in plan["notes"]:
        output.print(f"  note: {note}.")
    if plan["assumed"]:
        defaults = ", ".join(f"{name} {value}" for name, value in plan["assumed"].items())
        output.print(f"  engine defaults: {defaults}", style="dim")


def _bar(output: Console, plan: Mapping[str, Any]) -> None:
    total, cells, taken = plan["gpu_total_gib"], "", 0.0
    for _, key, shape, colour in _PARTS:
        begin, taken = taken, min(taken + plan[key], total)
        count = round(taken / total * _WIDTH) - round(begin / total * _WIDTH)
        cells += f"[{colour}]{shape * count}[/]"
    rest = _WIDTH - round(taken / total * _WIDTH)
    output.print(marked("  0 " + cells + "[dim]{}[/] {:.2f} GiB", "·" * rest, total))
    for name, key, shape, colour in _PARTS:
        spread = key == "kv_gib" and plan["kv_low_gib"] != plan["kv_high_gib"]
        limits = f" (between {plan['kv_low_gib']:.2f} and {plan['kv_high_gib']:.2f})" if spread else ""
        output.print(marked("    [" + colour + "]{}[/] {:<11}{:>7.2f} GiB{}", shape, name, plan[key], limits))
    beside = total - taken
    graphs = f", of which CUDA graphs about {plan['graphs_gib']:.2f}" if plan["graphs_gib"] else ""
    output.print(marked("    [dim]·[/] {:<11}{:>7.2f} GiB{}", "rest", beside, graphs))
