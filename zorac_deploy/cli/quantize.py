"""`zorac-deploy quantize`."""

from __future__ import annotations

import time
from pathlib import Path

import click
import platformdirs
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from zorac_deploy import quantize as quantizing
from zorac_deploy.cli import completing
from zorac_deploy.cli.common import json_option, output, print_result
from zorac_deploy.cli.deploying import report
from zorac_deploy.quantize.job import Device
from zorac_deploy.quantize.recipe import GROUP_SIZES


@click.command()
@click.argument("model", metavar="MODEL")
@click.option(
    "--recipe",
    default="awq-w4a16",
    show_default=True,
    metavar="NAME|FILE",
    shell_complete=completing.recipes,
    help=f"One of {', '.join(quantizing.shipped())}; or your own llmcompressor recipe.",
)
@click.option(
    "--output",
    "folder",
    type=click.Path(path_type=Path),
    help="Directory to create. Default: beside the model; for hf://, in the current directory.",
)
@click.option(
    "--calibration",
    default="",
    metavar="FILE|hf://NAME",
    help="Calibration data: a text file; a *.jsonl with messages or text in each line; or a data set of the hub, as in "
    "hf://OWNER/NAME@REVISION:SPLIT. Default: a book that comes with llmcompressor's environment.",
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=128, show_default=True, help="Number of samples to read."
)
@click.option("--length", type=click.IntRange(min=16), default=512, show_default=True, help="Tokens per sample.")
@click.option(
    "--group-size",
    type=click.Choice([str(size) for size in sorted(GROUP_SIZES)]),
    help="Weights that share a scale. Default: the recipe's, 128.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    help="Device to compute on. Default: cuda if this machine has an NVIDIA GPU.",
)
@json_option()
def quantize(
    model: str,
    recipe: str,
    folder: Path | None,
    calibration: str,
    samples: int,
    length: int,
    group_size: str | None,
    device: Device | None,
    as_json: bool,
) -> None:
    """Quantize MODEL on this machine.

    MODEL is a directory or hf://ORG/NAME[@REVISION]. It is quantized layer by layer. The first run installs
    llmcompressor into an environment of its own (1.3 GB; 7 GB with --device cuda).

    The result is a directory for `up --model`. Its model card has the recipe, and the perplexity before and after. An
    interrupted run leaves at most OUTPUT.partial, and the next run starts from the beginning.

    \b
    Examples:
      zorac-deploy quantize hf://mistralai/Mistral-Small-24B-Instruct-2501
      zorac-deploy quantize ~/models/SmolLM2-135M-Instruct --group-size 64 --samples 8 --length 256
      zorac-deploy quantize ~/models/Qwen3-8B --recipe gptq-w4a16 --calibration chats.jsonl --device cuda
    """
    began = time.monotonic()
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=output,
        transient=True,
        disable=as_json or not output.is_terminal,
    ) as bar:
        task = bar.add_task("read the model", total=None)

        def show(event: quantizing.Event) -> None:
            bar.update(task, description=event.doing, completed=event.layer or 0, total=event.layers)
            if not as_json and not output.is_terminal:
                at = f" layer {event.layer} of {event.layers}" if event.layer else ""
                output.print(f"{time.monotonic() - began:6.1f} s  {event.doing}{at}")

        size = int(group_size) if group_size else None
        job = quantizing.prepare(model, recipe, folder, calibration, samples, length, size, device or _device())
        log = platformdirs.user_log_path("zorac-deploy") / f"{time.strftime('%Y%m%d-%H%M%S')}-quantize.log"
        made = quantizing.make(job, log, show)
    if as_json:
        print_result({"folder": str(made.folder), **made.card})
        return
    before, after = made.card["bytes"].values()
    measured = made.card["perplexity"]
    report(
        {
            "model": str(made.folder),
            "weights": f"{after / 1e9:.2f} GB, before {before / 1e9:.2f} GB",
            "perplexity": f"{measured['after']:.2f}, before {measured['before']:.2f} on the same text",
            "log": str(log),
        }
    )
    output.print(f"\n  Deploy it: zorac-deploy up --model {made.folder}")


def _device() -> Device:
    return "cuda" if Path("/dev/nvidiactl").exists() else "cpu"
