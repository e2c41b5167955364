"""`zorac-deploy fit`."""

from pathlib import Path

import click

from zorac_deploy import planner
from zorac_deploy.cli import picture
from zorac_deploy.cli.card_options import card_options, described
from zorac_deploy.cli.common import json_option, output, print_result


@click.command()
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@card_options
@click.option(
    "--setting",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another engine flag, with underscores, or environment variable. Refused if it forces a slower kernel.",
)
@json_option("Print the result as JSON: sizes in GiB, lengths in tokens.")
def fit(model: Path, settings: tuple[str, ...], as_json: bool, **options: object) -> None:
    """Check whether MODEL fits a GPU, without one.

    It predicts the memory that the engine will log at its start. The exit code is 0 whatever the verdict.

    MODEL is a directory with at least a config.json, for vLLM, or a GGUF file, for llama.cpp. If the directory has the
    weights, their headers are read too. A setting that you leave out gets the default of that vLLM version for that
    GPU. The output names these defaults.

    \b
    Examples:
      zorac-deploy fit ~/models/Mistral-Small-24B-AWQ --gpu-name "RTX 4090" --gpu-total-gib 23.52 --kv-cache-dtype fp8
      zorac-deploy fit ~/models/Mistral-Small-24B-Q4_K_M.gguf --gpu-total-gib 23.52 --max-model-len auto
      zorac-deploy fit . --gpu-total-gib 79.18 --gpu-name H100 --max-model-len auto --json
    """
    others = {name: value for name, _, value in (setting.partition("=") for setting in settings)}
    result = planner.fit(model, described(options, others))
    if as_json:
        print_result(result.summary())
    else:
        picture.show(output, result.summary())
