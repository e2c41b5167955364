"""The size of a model's weights on one GPU."""

import math
from dataclasses import dataclass

from zorac_deploy.planner.model import Layer, Model

# vLLM splits the vocabulary between the GPUs after padding it to a multiple of this
# (vllm/model_executor/layers/vocab_parallel_embedding.py, DEFAULT_VOCAB_PADDING_SIZE).
VOCABULARY_MULTIPLE = 64


@dataclass(frozen=True)
class _Matrix:
    """`count` matrices of `rows` x `columns` each, called `name`."""

    name: str
    rows: int
    columns: int
    count: int = 1
    split: bool = True  # between the GPUs of a tensor-parallel group


def padded_vocabulary(model: Model) -> int:
    """The number of rows of the embedding with vLLM's padding."""
    return _multiple(model.vocabulary, VOCABULARY_MULTIPLE)


def _multiple(size: float, of: int) -> int:
    """`size` rounded up to a multiple of `of`."""
    return math.ceil(size / of) * of


def weights_bytes(model: Model, tensor_parallel_size: int, wide_zero_points: bool) -> float:
    """Bytes of the weights on one GPU.

    The sum over all matrices of their elements times the bytes per element after quantization, plus scales and zero
    points, divided between the GPUs. Norms, biases and routers are not split: they are thousandths.

    Args:
        model: The model.
        tensor_parallel_size: The number of GPUs that share the matrices.
        wide_zero_points: Whether the kernel stores zero points as 16-bit numbers (Machete) instead of packed ones.
    """
    total = 0.0
    for layer in model.layers:
        for matrix in (*_attention(model, layer), *_mlp(model, layer, tensor_parallel_size)):
            total += _bytes(model, matrix, tensor_parallel_size, wide_zero_points)
        total += 4 * model.hidden * model.dtype_bytes  # norms
    embedding = padded_vocabulary(model) * model.hidden
    total += embedding * model.dtype_bytes / tensor_parallel_size
    if not model.tied:
        head = _Matrix("lm_head", padded_vocabulary(model), model.hidden)
        total += _bytes(model, head, tensor_parallel_size, wide_zero_points)
    total += model.learned_positions * model.hidden * model.dtype_bytes
    # A vision tower is hardly ever quantized; on several GPUs it is split as the rest.
    total += model.vision * model.dtype_bytes / tensor_parallel_size
    return total + model.rotary_bytes


def _attention(model: Model, layer: Layer) -> tuple[_Matrix, ...]:
    hidden, heads = model.hidden, model.heads
    if layer.attention == "latent" and model.latent:
        latent = model.latent
        query = heads * (latent.nope_dim + latent.rope_dim)
        up = _Matrix("self_attn.kv_b_proj", heads * (latent.nope_dim + latent.value_dim), latent.kv_rank)
        first = (
            _Matrix("self_attn.q_a_proj", latent.q_rank, hidden, split=False),
            _Matrix("self_attn.q_b_proj", query, latent.q_rank),
        )
        return (
            *(first if latent.q_rank else (_Matrix("self_attn.q_proj", query, hidden),)),
            _Matrix("self_attn.kv_a_proj", latent.kv_rank + latent.rope_dim, hidden, split=False),
            up,
            # Stored a second time, split into keys and values
            # (vllm/model_executor/layers/attention/mla_attention.py, W_UK_T and W_UV).
            _Matrix("absorbed", up.rows, up.columns),
            _Matrix("self_attn.o_proj", hidden, heads * latent.value_dim),
        )
    if layer.attention == "linear" and model.linear:
        linear = model.linear
        keys, values = linear.key_heads * linear.key_dim, linear.value_heads * linear.value_dim
        return (
            _Matrix("linear_attn.in_proj_qkvz", 2 * keys + 2 * values, hidden),
            _Matrix("linear_attn.in_proj_ba", 2 * linear.value_heads, hidden),
            _Matrix("linear_attn.conv1d", 2 * keys + values, linear.kernel),
            _Matrix("linear_attn.out_proj", hidden, values),
        )
    query = heads * model.head_dim * (2 if model.output_gate else 1)
    return (
        _Matrix("self_attn.q_proj", query, hidden),
        _Matrix("self_attn.k_proj", model.kv_heads * model.head_dim, hidden, 2),
        _Matrix("self_attn.o_proj", hidden, heads * model.head_dim),
    )


def _mlp(model: Model, layer: Layer, tensor_parallel_size: int) -> tuple[_Matrix, ...]:
    hidden, matrices = model.hidden, 3 if model.gated else 2
    if not layer.experts or not model.experts:
        return (_Matrix("mlp.up_proj", model.intermediate, hidden, matrices),)
    experts = model.experts
    inner, outer = experts.intermediate, hidden
    if model.quantization.experts_only:
        # Padded for the kernels (vllm/model_executor/layers/quantization/mxfp4.py).
        inner = _multiple(inner / tensor_parallel_size, 128) * tensor_parallel_size
        outer = _multiple(hidden, 256)
    return (
        _Matrix("mlp.experts.0.up_proj", inner, outer, matrices * experts.count),
        _Matrix("mlp.shared_experts.up_proj", experts.shared_intermediate, hidden, matrices),
        _Matrix("mlp.gate", experts.count, hidden, split=False),
    )


def _bytes(model: Model, matrix: _Matrix, tensor_parallel_size: int, wide_zero_points: bool) -> float:
    packing = model.quantization
    elements = matrix.rows * matrix.columns * matrix.count
    inner = matrix.name not in ("mlp.gate", "linear_attn.conv1d", "linear_attn.in_proj_ba", "absorbed")
    if packing.leaves(matrix.name) or not inner or (packing.experts_only and "experts.0" not in matrix.name):
        size = float(elements * model.dtype_bytes)
    else:
        scales = elements / (packing.group or matrix.columns)
        zero_bytes = 2 if wide_zero_points else packing.bits / 8
        size = elements * packing.bits / 8 + scales * packing.scale_bytes
        size += scales * zero_bytes if packing.zero_points else 0
    return size / tensor_parallel_size if matrix.split else size
