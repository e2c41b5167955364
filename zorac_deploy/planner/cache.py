"""How vLLM divides the memory of the KV cache into blocks, and how many tokens they hold.

After vllm/v1/core/kv_cache_utils.py and vllm/v1/kv_cache_interface.py. Layers of one kind form groups of equal size;
the layers of all groups share memory pools of one page size; a block is one page in each pool.
"""

import math
from dataclasses import dataclass

from zorac_deploy.planner.engine import Engine
from zorac_deploy.planner.model import Model

_BLOCK_TOKENS = 16  # vLLM's default block size on NVIDIA GPUs

# With prefix caching, a request holds the running state and that of the last full block.
_STATES = {True: 2, False: 1}


@dataclass(frozen=True)
class Cache:
    """The division of the cache, for one model on one GPU.

    Attributes:
        block_tokens: Tokens that one block of attention holds.
        block_bytes: Bytes of a block in all pools.
        full_groups: Groups of layers with full attention.
        sliding_groups: Groups of layers with sliding-window attention.
        state_groups: Groups of layers with a state of fixed size.
    """

    block_tokens: int
    block_bytes: int
    full_groups: int
    sliding_groups: int
    state_groups: int

    @property
    def groups(self) -> int:
        """The number of groups."""
        return self.full_groups + self.sliding_groups + self.state_groups

    @property
    def bytes_per_token(self) -> float:
        """Bytes of the cache per token of a request, over all groups that store every token."""
        return self.block_bytes * (self.full_groups + self.sliding_groups) / self.block_tokens


def cut(model: Model, engine: Engine, cache_dtype_bytes: int, tensor_parallel_size: int) -> Cache:
    """Divide the cache of `model` on one of `tensor_parallel_size` GPUs.

    A token takes 2 · KV heads · head size numbers in a layer (keys and values); with latent attention its rank plus the
    part for positions, once, and not split between GPUs.
    """
    kinds = [layer.attention for layer in model.layers]
    if model.latent:
        per_token = (model.latent.kv_rank + model.latent.rope_dim) * cache_dtype_bytes
    else:
        per_token = 2 * max(model.kv_heads // tensor_parallel_size, 1) * model.head_dim * cache_dtype_bytes
    full, sliding, states = (kinds.count("full") + kinds.count("latent"), kinds.count("sliding"), kinds.count("linear"))
    if not full:  # all layers use sliding windows: one kind of layer, treated like full attention
        full, sliding = sliding, 0
    tokens = _BLOCK_TOKENS
    if states:
        tokens = max(tokens, math.ceil(_state_bytes(model, tensor_parallel_size) / per_token / tokens) * tokens)
    counts = [count for count in (full, sliding, states) if count]
    size = min(counts)
    # Kinds with similar numbers of layers share pools of the larger number (1.25 until 0.17, then 1.5; min(), until
    # 0.11).
    nearly = 1.5 if engine.version >= (0, 17) else 1.25
    if engine.version >= (0, 12) and max(counts) < size * nearly:
        size = max(counts)
    return Cache(
        block_tokens=tokens,
        block_bytes=tokens * per_token * size,
        full_groups=math.ceil(full / size),
        sliding_groups=math.ceil(sliding / size),
        state_groups=math.ceil(states / size),
    )


def _state_bytes(model: Model, tensor_parallel_size: int) -> float:
    """Bytes of one layer's state: the convolution's last inputs, and a matrix for each value head."""
    linear = model.linear
    if linear is None:
        return 0.0
    channels = 2 * linear.key_heads * linear.key_dim + linear.value_heads * linear.value_dim
    convolution = channels * (linear.kernel - 1) * model.dtype_bytes
    matrices = linear.value_heads * linear.key_dim * linear.value_dim * linear.state_bytes
    return (convolution + matrices) / tensor_parallel_size


def blocks_per_request(cache: Cache, model: Model, engine: Engine, length: int, max_num_batched_tokens: int) -> int:
    """How many blocks a request of `length` tokens may hold at a time."""
    full = math.ceil(length / cache.block_tokens)
    # Since 0.26 the blocks of the previous batch are still held while the next one is computed.
    in_flight = max_num_batched_tokens * (2 if engine.version >= (0, 26) else 1)
    window = min((model.window or length) - 1 + in_flight, length)
    in_window = math.ceil(window / cache.block_tokens) + 1  # a window may begin within a block
    states = _STATES[engine.version >= (0, 20)]
    return cache.full_groups * full + cache.sliding_groups * in_window + cache.state_groups * states


def tokens(cache: Cache, engine: Engine, blocks: int, per_request: int, length: int) -> int:
    """What vLLM calls "GPU KV cache size" for `blocks` blocks."""
    if engine.tokens_by_concurrency:
        return int(blocks / per_request * length)
    return blocks // cache.groups * cache.block_tokens


def longest(
    cache: Cache, model: Model, engine: Engine, kv_bytes: float, max_num_batched_tokens: int, limit: int
) -> int:
    """The longest request, up to `limit` tokens, whose blocks fit into `kv_bytes`; 0 if none does."""
    blocks = int(kv_bytes // cache.block_bytes) if kv_bytes > 0 else 0
    low, high = 0, limit
    while low < high:  # longer requests need more blocks, so bisection finds the last that fits
        middle = (low + high + 1) // 2
        if blocks_per_request(cache, model, engine, middle, max_num_batched_tokens) <= blocks:
            low = middle
        else:
            high = middle - 1
    return low
