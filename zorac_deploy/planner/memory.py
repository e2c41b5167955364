"""The GPU memory that is taken before the KV cache gets the rest."""

from dataclasses import dataclass

from zorac_deploy.planner.engine import GIB, Card, Engine
from zorac_deploy.planner.flags import Settings
from zorac_deploy.planner.model import Model
from zorac_deploy.planner.weights import padded_vocabulary, weights_bytes

# The spread between computed and logged values; docs/planner.md has the records.
_WEIGHTS_SPREAD = 0.02
_ACTIVATION_SPREAD = 0.15
_SPREAD_GIB = 0.1


@dataclass(frozen=True)
class Size:
    """A size in GiB: expected, minimum and maximum."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Parts:
    """The memory that is taken before the KV cache gets the rest.

    Attributes:
        graphs_counted: Whether CUDA graphs are subtracted from the KV cache.
        spare: GiB of the activation that only a start with compilation needs.
    """

    weights: Size
    activation: Size
    overhead: Size
    graphs: Size
    graphs_counted: bool
    spare: float

    def kv(self, requested: float) -> Size:
        """What is left of `requested`."""
        taken = [self.weights, self.activation, self.overhead, *([self.graphs] if self.graphs_counted else [])]
        return Size(
            requested - sum(part.value for part in taken),
            requested - sum(part.high for part in taken),
            requested - sum(part.low for part in taken),
        )


def parts(model: Model, card: Card, engine: Engine, flags: Settings, weights_gib: float | None) -> Parts:
    """The parts of the memory; `weights_gib` as for `plan`."""
    size = flags.tensor_parallel_size
    hybrid = any(layer.attention == "linear" for layer in model.layers)
    experts = model.experts is not None
    weights = weights_bytes(model, size, _keeps_wide_zero_points(model, card)) / GIB
    if weights_gib is not None:  # the files are exact; the formula gives each GPU's share
        weights = weights_gib * weights / (weights_bytes(model, 1, wide_zero_points=False) / GIB)
    # An unknown architecture may be a quarter off.
    spread = _WEIGHTS_SPREAD if model.known or weights_gib is not None else 0.25
    low, high = (_activation_gib(model, flags, width) for width in engine.sampler_bytes(experts, hybrid))
    compiled = _compiled_gib(model, engine, flags)
    activation = Size(
        max((low + high) / 2, compiled),
        low * (1 - _ACTIVATION_SPREAD),
        max(high, compiled) * (1 + _ACTIVATION_SPREAD) + (0.5 if model.vision else 0),
    )
    if model.large_pictures:
        activation = Size(activation.value + 1.0, activation.low, activation.high + 2.0)
    graphs = 0.0 if flags.enforce_eager else _graphs_gib(model, flags, engine)
    return Parts(
        weights=Size(weights, weights * (1 - spread), weights * (1 + spread) + _SPREAD_GIB),
        activation=activation,
        overhead=_overhead(model, card, engine, flags),
        graphs=Size(graphs, graphs / 2, graphs * (2 if experts else 1.5)),
        graphs_counted=engine.graphs_in_budget(experts, hybrid),
        spare=max(compiled - (low + high) / 2, 0.0),
    )


def _keeps_wide_zero_points(model: Model, card: Card) -> bool:
    """Whether vLLM chooses Machete for 4-bit weights, which stores zero points as 16-bit numbers: on Hopper it does."""
    return card.compute == (9, 0) and model.quantization.method == "compressed-tensors"


def _activation_gib(model: Model, flags: Settings, sampler_bytes: float) -> float:
    """The peak memory of the profile run (vllm/v1/worker/gpu_model_runner.py, profile_run).

    It runs `max_num_batched_tokens` tokens through the layers, and then samples for `max_num_seqs` sequences. The
    layers' peak is in the MLP: input and output (4 * hidden size), the gate, its other half and their product.
    Sampling has all sequences' logits, over the whole vocabulary on every GPU. Experts use buffers that stay: for
    each token and each of its experts, the larger of the two halves and the hidden size, and their product.
    """
    tokens, size, width = flags.max_num_batched_tokens, flags.tensor_parallel_size, model.dtype_bytes
    inner = (3 if model.gated else 2) * model.intermediate / size
    if model.experts and all(layer.experts for layer in model.layers):
        inner = 3 * model.experts.shared_intermediate / size
    layers = tokens * (inner + 4 * model.hidden) * width
    sequences = min(flags.max_num_seqs, tokens)
    sampling = sequences * model.vocabulary * (width + sampler_bytes) + tokens * model.hidden * width
    buffers = 0.0
    if model.experts and not model.quantization.experts_only:
        intermediate = model.experts.intermediate / size
        buffers = tokens * model.experts.per_token * (max(2 * intermediate, model.hidden) + intermediate) * width
    pictures = tokens * model.hidden * width if model.vision else 0
    return (max(layers, sampling) + buffers + pictures) / GIB


def _compiled_gib(model: Model, engine: Engine, flags: Settings) -> float:
    """The minimum extra memory of a start with compilation: a copy of the output head, measured with 0.26 on an H100.

    A start with a warm compilation cache has that much more for the KV cache. The first start decides: a plan has to
    hold for it.
    """
    if flags.enforce_eager or engine.version < (0, 25):
        return 0.0
    return padded_vocabulary(model) * model.hidden * model.dtype_bytes / flags.tensor_parallel_size / GIB + 0.04


def _graphs_gib(model: Model, flags: Settings, engine: Engine) -> float:
    """Memory of the CUDA graphs: 0.2 MiB per layer and graph, measured.

    A mixture of experts adds 6 MiB per graph, 12 with experts in MXFP4.

    There is one graph for each of the sizes 1, 2, 4, every eighth to 256 and every sixteenth up to twice the sequences,
    at most 512; and, since 0.12, one more for each size up to the number of sequences (vllm/config/vllm.py,
    _set_cudagraph_sizes).
    """

    def sizes(most: int) -> int:
        return sum(1 for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= most)

    graphs = sizes(min(2 * flags.max_num_seqs, 512, flags.max_num_batched_tokens))
    if engine.version >= (0, 12):
        graphs += sizes(min(flags.max_num_seqs, 512))
    extra = 0 if not model.experts else 12 if model.quantization.experts_only else 6
    return graphs * (0.2 * len(model.layers) + extra) / 1024


def _overhead(model: Model, card: Card, engine: Engine, flags: Settings) -> Size:
    """The memory that neither weights nor activation explain, measured on real starts."""
    value = Size(0.25, 0.2, 0.5) if engine.version >= (0, 18) else Size(0.1, 0.0, 0.2)
    if flags.tensor_parallel_size > 1:
        # The NVLink communication buffers are large on Hopper and newer: 1.8 GiB in 0.19. Elsewhere they are small.
        fast = (card.compute or (0, 0)) >= (9, 0) and engine.version >= (0, 18)
        extra = Size(1.85, 1.7, 2.1) if fast else Size(0.05, 0.0, 0.5)
        value = Size(value.value + extra.value, value.low + extra.low, value.high + extra.high)
    if engine.counts_everything_consumed:
        # The compilation's copy of the output head stays counted, except for a tied head, by the records.
        kept = 0.0 if model.tied else _compiled_gib(model, engine, flags)
        value = Size(value.value + 0.25 + kept, value.low, value.high + 0.5 + kept)
    return value
