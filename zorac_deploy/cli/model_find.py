"""`zorac-deploy model find`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from zorac_deploy import models, planner
from zorac_deploy.cli import deploying
from zorac_deploy.cli.card_options import card_options, described
from zorac_deploy.cli.common import (
    HostOptions,
    collect_options,
    host_options,
    json_option,
    output,
    print_result,
    session,
)
from zorac_deploy.cli.progress import Progress
from zorac_deploy.cli.terminal import clean, marked
from zorac_deploy.errors import Refused

if TYPE_CHECKING:
    from zorac_deploy.models.find import Variant


@click.command()
@click.argument("base", metavar="hf://ORG/NAME")
@host_options
@card_options
@json_option()
def find(base: str, as_json: bool, **options: Any) -> None:
    """Find quantized variants of a model.

    It says which of them fit the GPU of HOST, or a GPU that you describe with --gpu-total-gib.

    The order is that of Zorac's guide: AWQ, GPTQ, FP8 if the GPU supports it, GGUF for llama.cpp, then smaller models
    of the same author. Of each format the most downloaded are shown. Their names say who made them.

    \b
    Examples:
      zorac-deploy model find hf://mistralai/Mistral-Small-24B-Instruct-2501 tower
      zorac-deploy model find hf://mistralai/Mistral-Small-24B-Instruct-2501 --gpu-name "RTX 4090" --gpu-total-gib 23.52
    """
    host = collect_options(options)
    setup = _on_host(base, host) if host.command_line() else described(options)
    with output.status(marked("Search the hub for variants of {}", base)):
        offers = variants(base, setup)
    if as_json:
        print_result({"variants": [variant.summary() for variant in offers]})
    else:
        show(offers)


def variants(base: str, setup: planner.Setup) -> list[Variant]:
    """The variants of `base`, each with its plan for `setup`.

    Raises:
        Refused: `base` is not on a hub, or the hub cannot be reached.
    """
    from zorac_deploy.models import find as hub  # here: the import is slow, and few runs need it

    def judge(source: str) -> planner.Plan:
        return planner.fit(Path(models.resolve(source).folder), setup)

    return list(hub.variants(*hub.related(base), setup.card.compute, judge))


def planned_for(facts: Mapping[str, Any]) -> planner.Setup | None:
    """The setup that the role memory_plan planned for; None if the run stopped earlier."""
    summary = facts.get("memory_plan_setup")
    # Not with its other settings: they are for the model itself, not for a variant.
    return None if summary is None else replace(planner.Setup.load(summary), settings={})


def offered(refused: Refused, facts: Mapping[str, Any], accepted: bool, ask: bool) -> str:
    """Offer a quantized variant of a model that does not fit; return it if the user accepts.

    Args:
        refused: The refusal of the model.
        facts: The facts of the roles so far.
        accepted: Accept without asking.
        ask: Show the variants and ask, if there is a terminal.

    Returns:
        The variant's source.

    Raises:
        Refused: `refused`, if no variant fits or the user declines.
    """
    base, setup = facts.get("__model_weights_resolved", {}).get("source", ""), planned_for(facts)
    if refused.refusal != "model-does-not-fit" or not base.startswith("hf://") or setup is None:
        raise refused
    asking = ask and output.is_terminal and sys.stdin.isatty()
    if not accepted and not asking:
        raise Refused(
            f"{refused} Find a variant that fits: zorac-deploy model find {base}. Or re-run with --variant.",
            refused.refusal,
        )
    with output.status(marked("Search the hub for variants of {}", base)):
        offers = variants(base, setup)
    if ask:
        output.print(f"{refused}\n")
        show(offers)
    best = _best(offers)
    if best is None or not (accepted or click.confirm(clean(f"\nDeploy {best.source} instead?"))):
        raise refused
    return best.source


def show(offers: Sequence[Variant]) -> None:
    """Print the variants as a table, and the command that deploys the first that fits."""
    table = Table(box=None)
    for name in ("format", "model", "verdict", "KV tokens", "downloads"):
        table.add_column(name, justify="right" if name in ("KV tokens", "downloads") else "left", overflow="fold")
    for variant in offers:
        tokens = f"{variant.plan.kv_tokens:,}" if variant.plan and variant.plan.kv_tokens else ""
        verdict = variant.trouble or (variant.plan.verdict if variant.plan else "")
        table.add_row(variant.format, variant.source, verdict, tokens, f"{variant.downloads:,}")
    output.print(table if offers else "The hub lists no variants.")
    best = _best(offers)
    if best:
        which = "First that fits" if best.fits else "None fits for certain. First that may fit"
        output.print(f"\n{which}: zorac-deploy up --model {best.source}")
    else:
        output.print("\nNone fits. Make one: zorac-deploy quantize --help")


def _best(offers: Sequence[Variant]) -> Variant | None:
    """The first that fits; otherwise the first that may fit: a failed start is rolled back."""
    may = [variant for variant in offers if not variant.trouble and variant.plan and variant.plan.verdict != "refused"]
    return next((variant for variant in may if variant.fits), may[0] if may else None)


def _on_host(base: str, host: HostOptions) -> planner.Setup:
    facts: dict[str, Any] = {}
    progress = Progress(output, quiet=True)
    with session(host, deploying.variables(base, None)) as opened:
        try:
            deploying.changes(opened, progress, facts)
        except Refused:
            if planned_for(facts) is None:
                raise
    setup = planned_for(facts)
    if setup is None:
        raise Refused(
            f"the GPU memory of {opened.name} is unknown until a driver works. Deploy the host first, or leave out "
            "HOST and describe the GPU with --gpu-total-gib.",
            "driver-missing",
        )
    return setup
