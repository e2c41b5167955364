"""Predict what vLLM will log about memory, before it is started.

    KV cache = utilization * total - weights - peak activation - other overhead [- CUDA graphs]

as vllm/v1/worker/gpu_worker.py (determine_available_memory) computes it. Sizes and weights follow from the model;
activation from what the profile run allocates; the rest are constants measured on real starts, each with its spread.
The
verdict is `fits` if even the worst case fits, and `refused` if not even the best case does.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Literal

from zorac_deploy.errors import Refused
from zorac_deploy.planner import cache as kv
from zorac_deploy.planner.engine import GIB, Card, Engine
from zorac_deploy.planner.flags import CACHE_BYTES, Flags, Settings, check, complete
from zorac_deploy.planner.memory import Parts, Size, parts
from zorac_deploy.planner.model import Model
from zorac_deploy.planner.weights import padded_vocabulary

Verdict = Literal["fits", "borderline", "refused"]

# The memory of the driver and of CUDA's context: 0.15 to 0.51 GiB on the GPUs measured.
_CONTEXT_GIB = (0.15, 0.55)
_CONTEXT_TYPICAL_GIB = 0.5

# The memory of the driver and the allocator during graph capture. A 3090 at 0.90 failed with 217 MiB used by a desktop,
# and started without it.
_MARGIN_GIB = 1.0

_FREE = (
    "Free memory on device ({free:.2f}/{total_gib:.2f} GiB) on startup is less than desired GPU memory utilization "
    "({gpu_memory_utilization}, {requested:.2f} GiB). Decrease GPU memory utilization or reduce GPU memory used by "
    "other processes."
)


@dataclass(frozen=True)
class Plan:
    """The predicted memory of each GPU. Sizes in GiB, lengths in tokens.

    Attributes:
        overhead_gib: What neither PyTorch nor the model accounts for: communication buffers, libraries' workspaces.
        kv_gib: The size of the KV cache.
        kv_tokens: The "GPU KV cache size" that vLLM will log.
        kv_bytes_per_token: Bytes of the cache per token, on one GPU.
        max_concurrency: How many requests of `max_model_len` tokens fit at a time.
        largest_max_model_len: The longest context that certainly fits, within the model's limit.
        reason: The reason, in vLLM's words if it would refuse.
        assumed: The flags that were left out, with the engine's defaults.
        notes: Further notes.
        kv_low_gib: `kv_gib` if every part takes its maximum.
        kv_high_gib: `kv_gib` if every part takes its minimum.
    """

    gpu_total_gib: float
    requested_gib: float
    max_model_len: int
    verdict: Verdict
    reason: str
    assumed: Mapping[str, object]
    weights_gib: float | None = None
    activation_gib: float | None = None
    graphs_gib: float | None = None
    overhead_gib: float | None = None
    kv_gib: float | None = None
    kv_low_gib: float | None = None
    kv_high_gib: float | None = None
    kv_tokens: int | None = None
    kv_bytes_per_token: float | None = None
    max_concurrency: float | None = None
    largest_max_model_len: int | None = None
    notes: tuple[str, ...] = ()

    def summary(self) -> dict[str, object]:
        """The object that JSON output has."""
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}


def plan(model: Model | Refused, card: Card, engine: Engine, chosen: Flags, weights_gib: float | None = None) -> Plan:
    """Plan `model` for vLLM on `card`.

    Args:
        model: The model; or the refusal that says why it is unknown, which is enough to detect too little free memory.
        card: The GPUs.
        engine: The version of vLLM.
        chosen: Its flags.
        weights_gib: The size of the weights on all GPUs together, read from their files; by default computed.

    Raises:
        Refused: A flag or the GPU is invalid; or `model`, if it is a refusal.
    """
    check(card, chosen)
    flags, assumed = complete(chosen, card, engine, 0 if isinstance(model, Refused) else model.max_model_len)
    if card.free_gib is None and flags.kv_cache_memory_gib is None:
        assumed["gpu_free_gib"] = round(max(card.total_gib - _CONTEXT_TYPICAL_GIB, 0), 2)
    requested = flags.gpu_memory_utilization * card.total_gib
    base = Plan(card.total_gib, requested, flags.max_model_len, verdict="refused", reason="", assumed=assumed)
    free = _free(card)
    if requested > free.high and flags.kv_cache_memory_gib is None:
        return replace(base, reason=_FREE.format(free=free.value, requested=requested, **vars(flags), **vars(card)))
    if isinstance(model, Refused):
        raise model
    base = replace(base, notes=model.notes)
    if reason := _unserved(model, card, flags):
        return replace(base, reason=reason)
    taken = parts(model, card, engine, flags, weights_gib)
    fixed = flags.kv_cache_memory_gib
    left = Size(fixed, fixed, fixed) if fixed is not None else taken.kv(requested)
    width = CACHE_BYTES[flags.kv_cache_dtype] or engine.cache_bytes(model.quantization.small_cache, model.dtype_bytes)
    cut = kv.cut(model, engine, width, flags.tensor_parallel_size)

    def longest(gib: float) -> int:
        return kv.longest(cut, model, engine, gib * GIB, flags.max_num_batched_tokens, model.max_model_len)

    length = flags.max_model_len or max(longest(left.low), min(flags.least_max_model_len, model.max_model_len), 1)
    per_request = kv.blocks_per_request(cut, model, engine, length, flags.max_num_batched_tokens)
    blocks = int(max(left.value, 0) * GIB // cut.block_bytes)
    needed = per_request * cut.block_bytes / GIB
    verdict, reason = _verdict(left, needed, length, longest(left.value))
    doubt = None if fixed is not None else _no_room_beside(taken, free, flags, model, card.total_gib)
    if not model.known:
        guessed = "KV cache is" if weights_gib is not None else "weights and KV cache are"
        doubt = f"the planner does not know the architecture, so its {guessed} a guess."
    elif flags.tensor_parallel_size > 1 and card.compute is None:
        doubt = "the memory that GPUs of an unknown kind use to communicate is unknown: name them with --gpu-name."
    if verdict == "fits" and doubt:
        verdict, reason = "borderline", doubt
    if length > model.max_model_len:
        verdict = "refused"
        reason = (
            f"User-specified max_model_len ({length}) is greater than the derived max_model_len "
            f"({model.max_model_len}), the model's limit."
        )
    return replace(
        base,
        max_model_len=length,
        weights_gib=taken.weights.value,
        activation_gib=None if fixed else taken.activation.value,
        graphs_gib=None if fixed else taken.graphs.value,
        overhead_gib=None if fixed else taken.overhead.value,
        kv_gib=max(left.value, 0.0),
        kv_low_gib=max(left.low, 0.0),
        kv_high_gib=max(left.high, 0.0),
        kv_tokens=kv.tokens(cut, engine, blocks, per_request, length),
        kv_bytes_per_token=cut.bytes_per_token,
        max_concurrency=blocks / per_request,
        largest_max_model_len=longest(left.low),
        verdict=verdict,
        reason=reason,
    )


def _free(card: Card) -> Size:
    if card.free_gib is not None:
        return Size(card.free_gib, card.free_gib, card.free_gib)
    least, most = _CONTEXT_GIB
    total = card.total_gib
    return Size(max(total - _CONTEXT_TYPICAL_GIB, 0), max(total - most, 0), max(total - least, 0))


def _unserved(model: Model, card: Card, flags: Settings) -> str | None:
    """Why vLLM would refuse this model with these flags, whatever the memory; None if it would not."""
    size, packing = flags.tensor_parallel_size, model.quantization
    if size > card.count:
        return f"tensor_parallel_size is {size}, but the number of GPUs is {card.count}."
    if flags.max_num_batched_tokens < flags.max_num_seqs:
        return (
            f"max_num_batched_tokens ({flags.max_num_batched_tokens}) must be greater than or equal to max_num_seqs "
            f"({flags.max_num_seqs})."
        )
    if model.heads % size:
        return f"Total number of attention heads ({model.heads}) must be divisible by tensor parallel size ({size})."
    if max(model.kv_heads, size) % min(model.kv_heads, size) and not model.latent:
        return f"{model.kv_heads} KV heads cannot be split across, or repeated on, {size} GPUs."
    if padded_vocabulary(model) % size:
        return f"{padded_vocabulary(model)} rows of the vocabulary are not divisible by tensor parallel size ({size})."
    split = {"the MLP": model.experts.intermediate if model.experts else model.intermediate}
    if not model.latent:
        split["attention"] = model.heads * model.head_dim
    for name, width in split.items():
        if width % size:
            return f"{width} columns of {name} are not divisible by tensor parallel size ({size})."
        grouped = packing.bits < 8 and packing.group and not packing.experts_only
        if grouped and (width // size) % packing.group:
            return (
                f"the quantization's group size {packing.group} does not divide the {width // size} columns of {name} "
                "on one GPU: the input size is not aligned with the quantized weight shape."
            )
    return None


def _verdict(left: Size, needed: float, length: int, longest: int) -> tuple[Verdict, str]:
    """The verdict on the KV cache alone, and why."""
    if left.high <= 0:
        return "refused", "No available memory for the cache blocks: weights and activation take all of it."
    estimate = f" The estimated maximum model length is {longest}." if longest else ""
    if needed > left.high:
        return "refused", (
            f"To serve at least one request with the model's max seq len ({length}), {needed:.2f} GiB KV cache is "
            f"needed, which is larger than the available KV cache memory ({max(left.value, 0):.2f} GiB).{estimate}"
        )
    if needed > left.low:
        return "borderline", (
            f"a request of {length} tokens needs {needed:.2f} GiB of KV cache, and between {max(left.low, 0):.2f} and "
            f"{left.high:.2f} GiB are expected.{estimate}"
        )
    return "fits", (
        f"a request of {length} tokens needs {needed:.2f} GiB of KV cache, and {left.value:.2f} GiB are expected."
    )


def _no_room_beside(taken: Parts, free: Size, flags: Settings, model: Model, total_gib: float) -> str | None:
    """Why memory outside of the budget may not suffice; None if it does.

    Graphs outside of the budget are captured after the KV cache is allocated; then sampling is tried once more, with
    the logits of all sequences. A start with a warm compilation cache reserves nothing for compilation, so it has that
    much less to spare than the first one. Starts at 0.90, 0.92 and 0.95 failed there.
    """
    requested = flags.gpu_memory_utilization * total_gib
    if requested > free.low:
        return f"{requested:.2f} GiB are requested, but between {free.low:.2f} and {free.high:.2f} GiB will be free."
    outside, logits = free.value - requested, flags.max_num_seqs * model.vocabulary * 4 / GIB
    if taken.graphs_counted or not taken.graphs.value:
        return None
    needed = taken.graphs.high + logits + taken.spare + _MARGIN_GIB
    if outside >= needed:
        return None
    safer = max(math.floor((free.value - needed) / total_gib * 100), 1) / 100
    return (
        f"{outside:.2f} GiB are left outside the budget, but CUDA graphs and the warm-up may take {needed:.2f} GiB. "
        f"gpu_memory_utilization {safer} is safer."
    )
