"""`zorac-deploy plan`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich.text import Text

from zorac_deploy.cli import deploying, picture
from zorac_deploy.cli.common import (
    collect_options,
    context_option,
    host_options,
    json_option,
    model_option,
    output,
    print_result,
    replace_unit_option,
    session,
)
from zorac_deploy.cli.progress import Progress
from zorac_deploy.errors import Refused

_FEW = 10


@click.command()
@host_options
@model_option
@context_option
@replace_unit_option
@json_option()
@click.option("-v", "--verbose", is_flag=True, help="Print every task.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the plan.")
def plan(
    model: str | None,
    context: str | int | None,
    replace_unit: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
    **host: object,
) -> None:
    """Show what `up` would change, and GPU memory.

    It prints how much would change, and the memory plan of the GPU. -v adds each task and the diffs of files. It
    changes nothing.

    \b
    Examples:
      zorac-deploy plan tower
      zorac-deploy plan tower --context max
    """
    progress = Progress(output, verbose, quiet or as_json)
    facts: dict[str, Any] = {}
    variables = deploying.variables(model, context, replace_unit)
    with progress.shown("Connect to the host"), session(collect_options(host), variables) as opened:
        try:
            preview = deploying.would_change(opened, progress, facts)
        except Refused:
            if not as_json:
                _show_memory(facts)
            raise
    if as_json:
        print_result(
            {
                **preview.summary(opened.name),
                "plan": facts.get("memory_plan_result"),
                "holders": _holders(facts),
                "desired_state": facts.get("desired_state_document"),
            }
        )
        return
    output.print()
    deploying.count(opened, preview)
    _show_memory(facts)
    deploying.notes(facts)
    _show_tasks(preview.tasks, verbose)
    if verbose:
        deploying.show(preview)


def _show_tasks(tasks: Sequence[str], verbose: bool) -> None:
    """Show the tasks that would change something; of many, only how many there are in each role."""
    if not tasks:
        return
    output.print("\nup would", style="bold")
    lines: Iterable[str] = tasks
    if len(tasks) > _FEW and not verbose:
        roles = Counter(task.partition(": ")[0] for task in tasks)
        lines = (f"{role}: {count} task{'s' * (count != 1)}" for role, count in roles.items())
    for line in lines:
        output.print_row(Text("  "), line)
    if not verbose:
        output.print("Add -v for each task and the diffs of files.", style="dim")


def _holders(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The processes using memory of the selected GPUs, the largest first."""
    selected = {card["uuid"] for card in facts.get("gpu_compatibility_result", {}).get("selected", ())}
    holders = facts.get("nvidia_facts_found", {}).get("holders", ())
    return sorted(
        (holder for holder in holders if holder["gpu"] in selected), key=lambda holder: -(holder["used_mib"] or 0)
    )


def _show_memory(facts: Mapping[str, Any]) -> None:
    planned = facts.get("memory_plan_result")
    if planned is None:
        output.print("No memory plan: the GPU's memory is unknown until a driver works.")
        return
    output.print(f"\n{planned['card']['name']}", style="bold")
    picture.show(output, planned)
    for holder in _holders(facts):
        used = "?" if holder["used_mib"] is None else holder["used_mib"]
        unit = f" ({holder['unit']})" if holder["unit"] else ""
        output.print(f"  in use: {used} MiB by {holder['name']}{unit}")
