"""The planner's model: its layers and their sizes."""

from dataclasses import dataclass, field
from typing import Literal

from zorac_deploy.planner.quantization import Quantization

Attention = Literal["full", "sliding", "latent", "linear"]


@dataclass(frozen=True)
class Layer:
    """One decoder layer.

    Attributes:
        attention: ``full``, ``sliding`` (a window), ``latent`` (MLA: one compressed vector per token) or ``linear``
            (a state of fixed size).
        experts: Whether its MLP is a mixture of experts.
    """

    attention: Attention
    experts: bool


@dataclass(frozen=True)
class Experts:
    """A mixture of experts: the number of experts, the experts per token, and the size of their MLPs."""

    count: int
    per_token: int
    intermediate: int
    shared_intermediate: int


@dataclass(frozen=True)
class Latent:
    """Multi-head latent attention, as in DeepSeek V2 (arXiv 2405.04434, section 2.1)."""

    kv_rank: int
    q_rank: int
    rope_dim: int
    nope_dim: int
    value_dim: int


@dataclass(frozen=True)
class Linear:
    """A gated delta net (arXiv 2412.06464): heads, their sizes, its convolution, bytes per number of its state."""

    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int
    state_bytes: int


@dataclass(frozen=True)
class Model:
    """The properties of a model that decide its memory. Sizes are numbers of elements.

    Attributes:
        name: The architecture's name in the config.
        known: Whether the planner knows the architecture; otherwise only its sizes are used.
        max_model_len: The longest sequence of the model, in tokens.
        dtype_bytes: Bytes of a number that is not quantized.
        window: The window of a layer with sliding attention, in tokens.
        rotary_bytes: Bytes of the tables of rotary position embeddings.
        vision: Numbers in the vision encoder; 0 for a text model.
        large_pictures: Whether it takes images of any size, and so is profiled with a large one.
    """

    name: str
    known: bool
    hidden: int
    layers: tuple[Layer, ...]
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    gated: bool
    vocabulary: int
    tied: bool
    learned_positions: int
    output_gate: bool
    dtype_bytes: int
    max_model_len: int
    window: int | None
    rotary_bytes: int
    experts: Experts | None
    latent: Latent | None
    linear: Linear | None
    vision: int
    large_pictures: bool
    quantization: Quantization = field(default_factory=Quantization)
    notes: tuple[str, ...] = ()
