"""Predict what llama.cpp will log about memory, before it is started.

It allocates three buffers: the weights, the KV cache of its whole context, and the compute buffer of one batch. The
first two follow from the file (src/llama-kv-cache.cpp, src/llama-kv-cache-iswa.cpp); the third was fitted to logs.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from zorac_deploy.errors import Refused
from zorac_deploy.planner import gguf
from zorac_deploy.planner.engine import GIB, Card
from zorac_deploy.planner.flags import Flags, check
from zorac_deploy.planner.memory import Size
from zorac_deploy.planner.plan import Plan, Verdict

# Bytes of a number in the cache: f16, and q8_0 with a scale of two bytes per 32 numbers.
_CACHE_BYTES = {True: 34 / 32, False: 2.0}
# The tokens of a batch: the default of --ubatch-size, and the unit of the cache's length.
_BATCH, _CELLS = 512, 256
# The share of the GPU's memory: vLLM's default, because llama.cpp has none.
_UTILIZATION, _SEQUENCES = 0.9, 4
# The spread between computed and logged: on a CPU within 10 %; for GPUs no start was logged yet, and CUDA's own context
# and cuBLAS's workspace are added.
_COMPUTE_SPREAD = {True: (0.5, 3.0), False: (0.9, 1.1)}
_CONTEXT_GIB = {True: Size(0.5, 0.2, 0.8), False: Size(0.05, 0.0, 0.1)}
_MOST_LAYERS = 10_000
# The architectures with sliding-window layers; if the file does not list them, every n-th layer has full attention.
_WINDOWED = {"gemma2": 2, "gemma3": 6, "gemma3n": 5, "gpt-oss": 2, "cohere2": 4}
# Layers without regular attention: states of fixed size, and compressed vectors.
_UNCOUNTED = ("ssm.state_size", "attention.kv_lora_rank", "wkv.head_size", "full_attention_interval")


def fit(files: Sequence[Path], card: Card, flags: Flags) -> Plan:
    """Plan the GGUF model in `files` for `card`; a CPU has a `count` of 0.

    Raises:
        Refused: A file is damaged or cannot be planned, or a flag is invalid.
    """
    check(replace(card, count=max(card.count, 1)), flags)
    return plan(gguf.read(files), card, flags)


def plan(model: gguf.Gguf, card: Card, flags: Flags) -> Plan:
    """As `fit`, for the content of the files."""
    trained, on_card = _number(model, "context_length"), card.count > 0
    share = flags.gpu_memory_utilization or _UTILIZATION
    sequences = flags.max_num_seqs or _SEQUENCES
    assumed = {} if flags.gpu_memory_utilization else {"gpu_memory_utilization": share}
    assumed |= {} if flags.max_num_seqs else {"max_num_seqs": sequences}
    cards = max(card.count, 1)  # layers are distributed by the free memory of each
    budget = share * card.total_gib * cards
    small = flags.kv_cache_dtype.startswith("fp8")
    weights = _weights(model, on_card) / GIB

    def needed(length: int) -> Size:
        """The memory for a context of `length` tokens."""
        compute, context = _compute(model, length), _CONTEXT_GIB[on_card]
        fixed = weights + _cache(model, length, sequences, small) / GIB
        low, high = _COMPUTE_SPREAD[on_card]
        return Size(
            fixed + cards * (compute + context.value),
            fixed + cards * (compute * low + context.low),
            fixed + cards * (compute * high + context.high),
        )

    def longest(within: float) -> int:
        """The longest context that certainly fits within so many GiB."""
        return _largest(lambda length: needed(length).high <= within, trained)

    sure = longest(budget)
    length = flags.max_model_len or max(sure, min(flags.least_max_model_len, trained), 1)
    size, cache = needed(length), _cache(model, length, sequences, small)
    verdict, reason = _verdict(size, budget, length, sure, on_card)
    if length > trained:
        verdict, reason = "refused", f"the context is {length} tokens, but the model's limit is {trained}."
    unknown = [name for name in _UNCOUNTED if model.setting(name) is not None]
    if verdict == "fits" and unknown:
        verdict, reason = "borderline", f"the planner does not know how {unknown[0]} changes the cache."
    return Plan(
        gpu_total_gib=card.total_gib * cards,
        requested_gib=budget,
        max_model_len=length,
        verdict=verdict,
        reason=reason,
        assumed=assumed,
        weights_gib=weights,
        activation_gib=cards * _compute(model, length),
        overhead_gib=cards * _CONTEXT_GIB[on_card].value,
        kv_gib=cache / GIB,
        kv_low_gib=cache / GIB,
        kv_high_gib=cache / GIB,
        kv_tokens=_padded(length),
        kv_bytes_per_token=cache / _padded(length),
        max_concurrency=_padded(length) / length,
        largest_max_model_len=sure,
    )


def _weights(model: gguf.Gguf, on_card: bool) -> int:
    """Bytes of the weights on the device that computes: the token embedding stays on the host."""
    apart = on_card and "output.weight" in model.tensors
    return sum(size for name, size in model.tensors.items() if not (apart and name == "token_embd.weight"))


def _cache(model: gguf.Gguf, length: int, sequences: int, small: bool) -> float:
    """Bytes of the KV cache for `length` tokens, shared by `sequences` requests."""
    layers, heads = _number(model, "block_count", most=_MOST_LAYERS), _number(model, "attention.head_count")
    head = _number(model, "embedding_length") // heads
    numbers = sum(_number(model, f"attention.{part}_length", head) for part in ("key", "value"))
    kv_heads = _per_layer(model, "attention.head_count_kv", layers, heads)
    window = _number(model, "attention.sliding_window", 1)
    in_window = min(_padded(length), _padded(window * sequences + _BATCH))
    cells = [in_window if windowed else _padded(length) for windowed in _windowed(model, layers)]
    per_number = numbers * _CACHE_BYTES[small]
    return float(sum(count * tokens * per_number for count, tokens in zip(kv_heads, cells, strict=False)))


def _windowed(model: gguf.Gguf, layers: int) -> list[bool]:
    """Which layers have sliding windows; none if unknown, which counts too much rather than too little."""
    pattern = model.setting("attention.sliding_window_pattern")
    if isinstance(pattern, list) and len(pattern) == layers:
        return [bool(flag) for flag in pattern]
    every = pattern if isinstance(pattern, int) else _WINDOWED.get(str(model.settings["general.architecture"]), 0)
    if not every or not model.setting("attention.sliding_window"):
        return [False] * layers
    return [layer % every < every - 1 for layer in range(layers)]


def _compute(model: gguf.Gguf, length: int) -> float:
    """GiB of the compute buffer of a batch: 32-bit numbers, and the attention mask."""
    feed_forward = max(_per_layer(model, "feed_forward_length", 1, 0))
    numbers = 3 * feed_forward + 4 * _number(model, "embedding_length")
    return _BATCH * (4 * numbers + 2 * _padded(length)) / GIB


def _verdict(size: Size, budget: float, length: int, sure: int, on_card: bool) -> tuple[Verdict, str]:
    whose = "GPU" if on_card else "host"
    message = f"{length} tokens need {size.value:.2f} GiB, and {budget:.2f} GiB of the {whose}'s memory may be used."
    if size.low > budget:
        return "refused", message + (f" The longest that fits: {sure}." if sure else "")
    if size.high > budget:
        return "borderline", f"{message} It may take up to {size.high:.2f} GiB."
    return "fits", message


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` for which `fits` holds, which holds for all smaller ones; 0 for none."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _padded(length: int) -> int:
    """The cells of a cache for `length` tokens, rounded up."""
    return -(-length // _CELLS) * _CELLS


def _per_layer(model: gguf.Gguf, name: str, layers: int, default: int) -> list[int]:
    value = model.setting(name)
    if isinstance(value, list) and all(isinstance(item, int) for item in value):
        return [*value, *[default] * layers][: max(layers, len(value))]
    return [value if isinstance(value, int) else default] * layers


def _number(model: gguf.Gguf, name: str, default: int = 0, most: int = 10**9) -> int:
    """The setting `name`, a number from 1 to `most`; `default`, if given, when the file does not have it."""
    value = model.setting(name) or default
    if isinstance(value, list):  # one number per layer
        value = max((item for item in value if isinstance(item, int)), default=0)
    if not isinstance(value, int) or not 1 <= value <= most:
        architecture = model.settings.get("general.architecture", "of no architecture")
        message = f"the GGUF model ({architecture}) has no {name}, which the planner needs. Use another file."
        raise Refused(message, "model-unknown")
    return value
