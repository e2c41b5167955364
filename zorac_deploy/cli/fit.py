"""`zorac-deploy fit`."""

from pathlib import Path

import click

from zorac_deploy import planner
from zorac_deploy.cli import picture
from zorac_deploy.cli.card_options import card_options, described
from zorac_deploy.cli.common import output, print_json


@click.command()
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@card_options
@click.option(
    "--setting",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another flag, with underscores for dashes, or variable of the engine: refused if it forces a slower kernel.",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON: sizes in GiB, lengths in tokens.")
def fit(model: Path, settings: tuple[str, ...], as_json: bool, **options: object) -> None:
    """Will MODEL fit? Predict what the engine will log about memory, without a host and without a GPU.

    MODEL is a folder with at least a config.json, for vLLM; with the weights there, their files are asked too. Or it is
    a GGUF file, for llama.cpp. A flag that is left out is what that version of vLLM takes by itself for that card, and
    is named. The exit code is 0 whatever the verdict.

    \b
    Examples:
      zorac-deploy fit ~/models/Mistral-Small-24B-AWQ --gpu-name "RTX 4090" --gpu-total-gib 23.52 --kv-cache-dtype fp8
      zorac-deploy fit ~/models/Mistral-Small-24B-Q4_K_M.gguf --gpu-total-gib 23.52 --max-model-len auto
      zorac-deploy fit . --gpu-total-gib 79.18 --gpu-name H100 --max-model-len auto --json
    """
    others = {name: value for name, _, value in (each.partition("=") for each in settings)}
    found = planner.fit(model, described(options, others))
    if as_json:
        print_json(found.summary())
    else:
        picture.show(output, found.summary())
