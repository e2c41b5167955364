"""`zorac-deploy fit`."""

from pathlib import Path

import click

from zorac_deploy.cli import picture
from zorac_deploy.cli.common import Tokens, output, print_json
from zorac_deploy.planner import Card, Engine, Flags
from zorac_deploy.planner import fit as planned
from zorac_deploy.planner.engine import GIB

# The engine of the profiles with a card.
_VERSION = "0.26.0"


_POSITIVE = click.IntRange(min=1)
_SIZE = click.FloatRange(min=0, min_open=True, max=10_000)


@click.command()
@click.argument("model", metavar="MODEL_DIR", type=click.Path(path_type=Path))
@click.option("--gpu-total-gib", type=_SIZE, help="Memory of one card as CUDA sees it: 23.52 for an RTX 4090.")
@click.option("--gpu-free-gib", type=click.FloatRange(min=0), help="What of it is free. Default: nobody else uses it.")
@click.option("--gpu-name", default="", help="What the card is called, as in 'RTX 4090': defaults and kernels differ.")
@click.option("--gpus", type=_POSITIVE, default=1, show_default=True, help="How many such cards there are.")
@click.option("--gpu-memory-utilization", type=click.FloatRange(0, 1, min_open=True), help="The engine's share of it.")
@click.option("--max-model-len", type=Tokens("auto", 0), help="Context; auto for the longest that surely fits.")
@click.option("--least-max-model-len", type=_POSITIVE, default=1, help="What auto shall not fall below.")
@click.option("--kv-cache-dtype", default="auto", show_default=True, help="auto (as the model) or fp8.")
@click.option("--max-num-seqs", type=_POSITIVE, help="How many requests run at once.")
@click.option("--max-num-batched-tokens", type=_POSITIVE, help="How many tokens are computed at once.")
@click.option("--tensor-parallel-size", type=_POSITIVE, default=1, show_default=True, help="Over how many cards.")
@click.option("--enforce-eager", is_flag=True, help="Without CUDA graphs.")
@click.option("--dtype", default="auto", show_default=True, help="What is computed in.")
@click.option("--kv-cache-memory-bytes", type=_POSITIVE, help="A KV cache of fixed size, whatever the card has.")
@click.option("--vllm-version", default=_VERSION, show_default=True, help="The version of the engine.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON: sizes in GiB, lengths in tokens.")
def fit(
    model: Path,
    gpu_total_gib: float | None,
    gpu_free_gib: float | None,
    gpu_name: str,
    gpus: int,
    gpu_memory_utilization: float | None,
    max_model_len: int | None,
    least_max_model_len: int,
    kv_cache_dtype: str,
    max_num_seqs: int | None,
    max_num_batched_tokens: int | None,
    tensor_parallel_size: int,
    enforce_eager: bool,
    dtype: str,
    kv_cache_memory_bytes: int | None,
    vllm_version: str,
    as_json: bool,
) -> None:
    """Will the model in MODEL_DIR fit? Predict what vLLM will log about memory, without a host and without a GPU.

    MODEL_DIR holds at least a config.json; with the weights there, their files are asked too. A flag that is left out
    is what that version of vLLM takes by itself for that card, and is named. The exit code is 0 whatever the verdict.

    \b
    Examples:
      zorac-deploy fit ~/models/Mistral-Small-24B-AWQ --gpu-name "RTX 4090" --gpu-total-gib 23.52 --kv-cache-dtype fp8
      zorac-deploy fit . --gpu-total-gib 79.18 --gpu-name H100 --max-model-len auto --json
    """
    if gpu_total_gib is None and kv_cache_memory_bytes is None:
        raise click.UsageError("Missing option '--gpu-total-gib': the memory of one card.")
    found = planned(
        model,
        Card(gpu_total_gib or kv_cache_memory_bytes / GIB, gpu_free_gib, gpu_name, gpus),  # type: ignore[operator]
        Engine.parse(vllm_version),
        Flags(
            gpu_memory_utilization=gpu_memory_utilization,
            max_model_len=max_model_len,
            least_max_model_len=least_max_model_len,
            kv_cache_dtype=kv_cache_dtype,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            tensor_parallel_size=tensor_parallel_size,
            enforce_eager=enforce_eager,
            kv_cache_memory_gib=kv_cache_memory_bytes / GIB if kv_cache_memory_bytes else None,
        ),
        dtype,
    )
    if as_json:
        print_json(found.summary())
    else:
        picture.show(output, found.summary())
