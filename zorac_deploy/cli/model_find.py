"""`zorac-deploy model find`."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape
from rich.table import Table

from zorac_deploy.cli import deploying
from zorac_deploy.cli.card_options import card_options, described
from zorac_deploy.cli.common import HostOptions, host_options, output, print_json, session, words
from zorac_deploy.cli.progress import Progress
from zorac_deploy.errors import Refused
from zorac_deploy.models import resolve
from zorac_deploy.planner import Plan, fit

if TYPE_CHECKING:
    from zorac_deploy.models.find import Variant

# What the role memory_plan leaves: the options by which it asks `fit`, which are those of this command, too.
_OPTIONS = "memory_plan_options"


@click.command()
@click.argument("base", metavar="hf://ORG/NAME")
@host_options
@card_options
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def find(base: str, as_json: bool, **options: Any) -> None:
    """Find quantized variants of a model, and say which fit: on a card that you describe, or on that of HOST.

    In the order of Zorac's guide: AWQ, GPTQ, FP8 where the card computes it, GGUF for llama.cpp, then smaller models of
    the same author. Of each the most fetched; who made them is in their names, and you decide whom to trust.

    \b
    Examples:
      zorac-deploy model find hf://mistralai/Mistral-Small-24B-Instruct-2501 tower
      zorac-deploy model find hf://mistralai/Mistral-Small-24B-Instruct-2501 --gpu-name "RTX 4090" --gpu-total-gib 23.52
    """
    host = words(options)
    if host.again():
        options = _on_host(base, host)
    with output.status(f"Ask the hub for variants of {base}"):
        seen = variants(base, options)
    if as_json:
        print_json([each.summary() for each in seen])
    else:
        show(seen)


def variants(base: str, options: Mapping[str, Any]) -> "list[Variant]":
    """The variants of `base`, with what the planner says of each for the card that `options` describe.

    Raises:
        Refused: `base` is not on a hub, or the hub cannot be asked.
    """
    from zorac_deploy.models import find as hub  # here, for it takes its time, and most runs do not need it

    card, engine, flags, dtype = described(options)

    def judge(source: str) -> Plan:
        return fit(Path(resolve(source).folder), card, engine, flags, dtype)

    return list(hub.variants(*hub.related(base), card.compute, judge))


def said_of(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """The options that describe the card and the engine of a host; None where the run did not get as far."""
    if _OPTIONS not in facts:
        return None
    with find.make_context("find", ["hf://-/-", *facts[_OPTIONS]]) as context:
        return dict(context.params)


def offered(refused: Refused, facts: Mapping[str, Any], accepted: bool, ask: bool) -> str:
    """A quantized variant of a model that does not fit, if one does and the person agrees.

    Args:
        refused: What the role said of the model.
        facts: What the run found out before.
        accepted: The person agreed beforehand.
        ask: Show what there is, and ask where somebody sits at a terminal.

    Returns:
        Its source.

    Raises:
        Refused: `refused`, where there is nothing to offer or the person does not agree.
    """
    base, options = facts.get("__model_weights_resolved", {}).get("source", ""), said_of(facts)
    if refused.refusal != "model-does-not-fit" or not base.startswith("hf://") or options is None:
        raise refused
    asking = ask and output.is_terminal and sys.stdin.isatty()
    if not accepted and not asking:
        raise Refused(
            f"{refused} Its quantized variants: zorac-deploy model find {base}. Or type the same with --variant.",
            refused.refusal,
        )
    with output.status(f"Ask the hub for variants of {base}"):
        seen = variants(base, options)
    if ask:
        output.print(f"{escape(str(refused))}\n", soft_wrap=True)
        show(seen)
    best = next((each for each in seen if each.fits), None)
    if best is None or not (accepted or click.confirm(f"\nDeploy {best.source} instead?")):
        raise refused
    return best.source


def show(seen: "Sequence[Variant]") -> None:
    """Print the variants as a table, and the first that fits as a command."""
    table = Table(box=None)
    for name in ("format", "model", "verdict", "KV tokens", "downloads"):
        table.add_column(name, justify="right" if name in ("KV tokens", "downloads") else "left", overflow="fold")
    for each in seen:
        tokens = f"{each.plan.kv_tokens:,}" if each.plan and each.plan.kv_tokens else ""
        verdict = each.trouble or (each.plan.verdict if each.plan else "")
        table.add_row(each.format, escape(each.source), escape(verdict), tokens, f"{each.downloads:,}")
    output.print(table if seen else "the hub knows none.")
    best = next((each for each in seen if each.fits), None)
    if best:
        output.print(f"\nthe first that fits: zorac-deploy up --model {escape(best.source)}", soft_wrap=True)
    else:
        output.print("\nnone surely fits. Make one: zorac-deploy quantize --help")


def _on_host(base: str, host: HostOptions) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    progress = Progress(output, quiet=True)
    with session(host, deploying.variables(base, None)) as opened:
        try:
            deploying.changes(opened, progress, facts)
        except Refused:
            if said_of(facts) is None:
                raise
    options = said_of(facts)
    if options is None:
        raise Refused(f"nothing is known of the memory of {opened.name} before a driver works.", "driver-missing")
    return options
