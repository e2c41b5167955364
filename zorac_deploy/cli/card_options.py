"""The options that describe GPUs and an engine which need not exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from zorac_deploy import engine_settings, planner
from zorac_deploy.cli.common import Tokens

_POSITIVE = click.IntRange(min=1)
_SIZE = click.FloatRange(min=0, min_open=True, max=10_000)

_Command = TypeVar("_Command", bound=Callable[..., object])

_OPTIONS = (
    click.option("--gpu-total-gib", type=_SIZE, help="Memory of one GPU as CUDA reports it: 23.52 for an RTX 4090."),
    click.option("--gpu-free-gib", type=click.FloatRange(min=0), help="Free memory of one GPU. Default: all of it."),
    click.option("--gpu-name", default="", help="Name of the GPU, as in 'RTX 4090'. It selects defaults and kernels."),
    click.option(
        "--gpus",
        type=click.IntRange(min=0),
        default=1,
        show_default=True,
        help="Number of such GPUs. 0: a GGUF file on a CPU with that much memory.",
    ),
    click.option(
        "--gpu-memory-utilization",
        type=click.FloatRange(0, 1, min_open=True),
        help="The engine's share of the GPU memory.",
    ),
    click.option(
        "--max-model-len", type=Tokens("auto", 0), help="Context length in tokens. auto: the longest that fits."
    ),
    click.option("--least-max-model-len", type=_POSITIVE, default=1, help="Shortest context that auto may choose."),
    click.option(
        "--kv-cache-dtype", default="auto", show_default=True, help="Type of the KV cache: auto (as the model) or fp8."
    ),
    click.option("--max-num-seqs", type=_POSITIVE, help="Requests computed at once."),
    click.option("--max-num-batched-tokens", type=_POSITIVE, help="Tokens computed at once."),
    click.option(
        "--tensor-parallel-size", type=_POSITIVE, default=1, show_default=True, help="GPUs that share each layer."
    ),
    click.option("--enforce-eager", is_flag=True, help="Do not use CUDA graphs."),
    click.option("--dtype", default="auto", show_default=True, help="Type of weights and activations."),
    click.option("--kv-cache-memory-bytes", type=_POSITIVE, help="Fixed size of the KV cache, whatever the GPU has."),
    click.option("--vllm-version", metavar="X.Y.Z", help="Version of vLLM. Default: the one that `up` installs."),
)


def card_options(command: _Command) -> _Command:
    """Add the options that describe GPUs and an engine to a command. `described` takes their values."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def described(options: Mapping[str, Any], settings: Mapping[str, str] | None = None) -> planner.Setup:
    """The setup that the options of `card_options` describe, with further `settings` of the engine.

    Raises:
        click.UsageError: No option says how much memory there is.
        Refused: The planner does not know the engine.
    """
    total, fixed = options["gpu_total_gib"], options["kv_cache_memory_bytes"]
    if total is None and fixed is None:
        raise click.UsageError("Missing option '--gpu-total-gib': the memory of one GPU.")
    gib = planner.engine.GIB
    card = planner.Card(total or fixed / gib, options["gpu_free_gib"], options["gpu_name"], options["gpus"])
    planned = {name: options[name] for name in engine_settings.PLANNED if name != "dtype"}
    flags = planner.Flags(**planned, kv_cache_memory_gib=fixed / gib if fixed else None)
    version = options["vllm_version"] or planner.engine.DEFAULT_VERSION
    return planner.Setup(card, planner.Engine.parse(version), flags, options["dtype"], settings or {})
