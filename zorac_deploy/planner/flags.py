"""The flags of vLLM that decide its memory."""

from dataclasses import dataclass

from zorac_deploy.errors import Refused
from zorac_deploy.planner.engine import Card, Engine

# Bytes of a number in the cache; None for the model's own type.
CACHE_BYTES = {"auto": None, "bfloat16": 2, "float16": 2, "fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1}


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The flags of vLLM that decide its memory; None uses the engine's default.

    Attributes:
        max_model_len: Tokens; 0 for the longest context that certainly fits.
        least_max_model_len: The minimum that 0 may choose.
        kv_cache_memory_gib: A cache of fixed size, as vLLM on a CPU has it; None for the remaining GPU memory.
    """

    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    least_max_model_len: int = 0
    kv_cache_dtype: str = "auto"
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    tensor_parallel_size: int = 1
    enforce_eager: bool = False
    kv_cache_memory_gib: float | None = None


@dataclass(frozen=True)
class Settings(Flags):
    """The flags with all values set."""

    gpu_memory_utilization: float = 0.9
    max_model_len: int = 0
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048


def check(card: Card, flags: Flags) -> None:
    """Refuse numbers that no engine or GPU supports."""
    numbers = (
        ("the GPU's memory in GiB", card.total_gib, 0, 10_000),
        ("the free memory in GiB", card.total_gib if card.free_gib is None else card.free_gib, -1e-9, card.total_gib),
        ("the number of GPUs", card.count, 0, 1024),
        ("gpu_memory_utilization", flags.gpu_memory_utilization, 0, 1),
        ("max_model_len", flags.max_model_len or None, 0, 10**9),
        ("max_num_seqs", flags.max_num_seqs, 0, 10**6),
        ("max_num_batched_tokens", flags.max_num_batched_tokens, 0, 10**7),
        ("tensor_parallel_size", flags.tensor_parallel_size, 0, 1024),
        ("the fixed KV cache in GiB", flags.kv_cache_memory_gib, 0, 10_000),
    )
    for name, value, above, most in numbers:
        if value is not None and not above < value <= most:
            raise Refused(
                f"{name} is {value}. Use a number above {max(above, 0):g}, up to {most:g}.", "settings-invalid"
            )
    if flags.kv_cache_dtype not in CACHE_BYTES:
        raise Refused(
            f"kv_cache_dtype is {flags.kv_cache_dtype}. Use one of: {', '.join(CACHE_BYTES)}.", "settings-invalid"
        )


def complete(flags: Flags, card: Card, engine: Engine, longest: int) -> tuple[Settings, dict[str, object]]:
    """The flags with the engine's defaults for those left out, and the names of these."""
    batched, seqs = engine.batch_defaults(card)
    defaults: dict[str, object] = {
        "gpu_memory_utilization": engine.gpu_memory_utilization,
        "max_model_len": longest,
        "max_num_seqs": min(seqs, flags.max_num_batched_tokens or batched),
        "max_num_batched_tokens": batched,
    }
    assumed = {name: value for name, value in defaults.items() if getattr(flags, name) is None}
    return Settings(**{**vars(flags), **assumed}), assumed
