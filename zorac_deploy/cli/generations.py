"""`zorac-deploy generations` and `zorac-deploy rollback`."""

from __future__ import annotations

import re
import time
from dataclasses import asdict

import click
from rich.table import Table

from zorac_deploy import deployment
from zorac_deploy.cli import deploying
from zorac_deploy.cli.common import collect_options, host_options, json_option, output, print_result, session
from zorac_deploy.cli.progress import Progress
from zorac_deploy.cli.terminal import marked
from zorac_deploy.errors import Refused

# The displayed text of each state.
_STATES = {"proved": "good", "": "never activated"}
_NUMBER = re.compile("[0-9]{1,9}")


@click.command()
@host_options
@click.option(
    "--collect", is_flag=True, help="Remove generations that are no longer needed, with their engines and models."
)
@click.option("--keep", type=click.IntRange(min=1), default=3, help="Number of good generations to keep. Default: 3.")
@click.option("--check", is_flag=True, help="Show what --collect would remove, and remove nothing.")
@json_option()
def generations(collect: bool, keep: int, check: bool, as_json: bool, **host: object) -> None:
    """List the generations of HOST.

    Each has its profile, its state, and what differs from the one before. --collect removes neither the current nor the
    newest generation. An engine or a model is stored once, however many generations use it.

    \b
    Examples:
      zorac-deploy generations tower
      zorac-deploy generations tower --collect --keep 2 --check
    """
    with session(collect_options(host)) as opened:
        if not collect:
            listed = deployment.generations(opened.connection)
            if as_json:
                print_result({"generations": [asdict(generation) for generation in listed]})
            else:
                output.print(_table(listed))
            return
        with opened.connection.lock("zorac-deploy generations --collect"):
            removed = deployment.collect(opened.connection, keep, check)
    if as_json:
        print_result({"host": opened.name, "check": check, **removed.model_dump()})
        return
    numbers = ", ".join(map(str, removed.generations)) or "none"
    output.print(
        marked(
            "[bold]{}:[/] {} generations: {}; {:.1f} GiB",
            *(opened.name, "would remove" if check else "removed", numbers, removed.bytes / 2**30),
        )
    )
    for path in removed.paths:
        output.print(f"  {path}")


@click.command()
@host_options
@click.argument("number", metavar="[N]", required=False)
@json_option()
def rollback(number: str | None, as_json: bool, **host: object) -> None:
    """Roll back to generation N, or the last good.

    The host activates generation N and verifies a real reply. If that fails, it returns to the generation that it
    serves now. The driver and the desktop are not changed.

    \b
    Examples:
      zorac-deploy rollback
      zorac-deploy rollback tower 4
    """
    if number is None and _NUMBER.fullmatch(str(host["host_name"])):  # a number alone is a generation, not a host
        number, host["host_name"] = str(host["host_name"]), None
    if number is not None and not _NUMBER.fullmatch(number):
        raise click.UsageError(f"{number[:40]!r} is not a generation number. List them with: zorac-deploy generations")
    progress = Progress(output, quiet=as_json)
    with session(collect_options(host)) as opened:
        before = deployment.read(opened.connection).generation
        target = int(number) if number else _last_good(deployment.generations(opened.connection), opened.name)
        with (
            progress.shown(f"Activate generation {target}"),
            opened.connection.lock(f"zorac-deploy rollback to {target}"),
        ):
            done = deployment.activate(opened.connection, target, deploying.requester("rollback"))
    if as_json:
        print_result({"host": opened.name, "from": before, **asdict(done)})
    elif not done.changed:
        output.print(marked("[bold]{}[/] already serves generation {}: nothing to do.", opened.name, target))
    else:
        deploying.report({"host": f"{opened.name}, generation {before} → {target}", **deploying.downtime(done.seconds)})


def _last_good(listed: list[deployment.Generation], name: str) -> int:
    good = [generation for generation in listed if generation.state == "proved" and not generation.current]
    if not good:
        raise Refused(
            f"{name} has no other good generation. List them with: zorac-deploy generations", "generation-unknown"
        )
    return max(good, key=lambda generation: generation.order).number


def _table(listed: list[deployment.Generation]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "created", "profile", "state", "changes"):
        table.add_column(name, overflow="fold")
    before = None
    for generation in listed:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(generation.created))
        state = f"{_STATES.get(generation.state, generation.state)}{', current' if generation.current else ''}"
        if before is None:
            changes = [str(generation.about["engine"]), str(generation.about["model"])]
        else:
            changes = [f"{name}: {old} → {new}" for name, (old, new) in generation.difference(before).items()]
        if generation.reason:
            changes.append(f"failed: {generation.reason}")
        table.add_row(str(generation.number), made, str(generation.about["profile"]), state, "\n".join(changes))
        before = generation
    return table
