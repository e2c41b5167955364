"""Parse a config.json into a model description."""

from collections.abc import Mapping
from typing import Any

from zorac_deploy.errors import Refused
from zorac_deploy.planner.architectures import ALIASES, ARCHITECTURES, VISION_DEFAULTS, Architecture, find
from zorac_deploy.planner.model import Attention, Experts, Latent, Layer, Linear, Model
from zorac_deploy.planner.quantization import quantization

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "half": 2, "float32": 4, "float": 4}

# A state instead of keys and values; only the gated delta net of Qwen's hybrids is known here.
_STATE_SPACE = ("mamba", "mamba2", "recurrent", "conv", "hybrid", "M", "ssm")


class _Config:
    """A config.json with the architecture's defaults."""

    def __init__(self, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
        self._values, self._defaults = values, defaults

    def get(self, name: str) -> Any:
        for spelling in (name, *ALIASES.get(name, ())):
            if self._values.get(spelling) is not None:
                return self._values[spelling]
        return self._defaults.get(name)

    def size(self, name: str, default: int | None = None, least: int = 1) -> int:
        """The whole number `name`, at least `least`."""
        value = self.get(name)
        if value is None:
            if default is None:
                raise Refused(
                    f"config.json has no {name}, which the planner needs. Set vllm_max_model_len to a number.",
                    "model-unknown",
                )
            return default
        # A list in place of a number (one entry per layer) is of an architecture that is planned otherwise.
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 10**9:
            raise Refused(
                f"config.json has {name}: {value!r}, but needs a whole number of at least {least}. Download it again.",
                "model-damaged",
            )
        return value

    def number(self, name: str, default: float) -> float:
        """The number `name`; `default` if it is missing or invalid."""
        value = self.get(name)
        return float(value) if isinstance(value, (int, float)) and 0 < value <= 10**4 else default

    def flag(self, name: str, default: bool) -> bool:
        """Whether `name` is set."""
        value = self.get(name)
        return default if value is None else bool(value)

    def section(self, name: str) -> Mapping[str, Any] | None:
        value = self.get(name)
        return value if isinstance(value, Mapping) else None


def from_config(config: Mapping[str, Any], dtype: str = "auto") -> Model:
    """The model that `config` describes.

    Args:
        config: The content of config.json.
        dtype: The data type for computing: ``auto`` for that of the config.

    Raises:
        Refused: It is not a model, or cannot be planned; the message names the setting.
    """
    nested = (config.get(key) for key in ("text_config", "llm_config"))
    text: Mapping[str, Any] = next((section for section in nested if isinstance(section, Mapping)), {})
    merged = {**config, **text}
    classes = config.get("architectures")
    class_name = _word(classes[0]) if isinstance(classes, list) and classes else None
    outer, inner = _word(config.get("model_type")), _word(text.get("model_type"))
    name = class_name or inner or outer or ""
    key = find(inner, None) or find(outer, class_name) or find(None, class_name)
    architecture = ARCHITECTURES[key] if key else Architecture()
    read = _Config(merged, architecture.defaults)

    hidden = read.size("hidden_size")
    heads = read.size("num_attention_heads")
    layers = _layers(read, architecture)
    head_dim = read.size("head_dim", max(hidden // heads, 1))
    kv_heads = 1 if read.flag("multi_query", False) and key == "falcon" else read.size("num_key_value_heads", heads)
    experts = _experts(read)
    max_model_len = _max_model_len(read)
    dtype_bytes = _dtype_bytes(dtype)
    return Model(
        name=name or "unnamed",
        known=key is not None,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=read.size("intermediate_size", experts.intermediate if experts else 4 * hidden),
        gated=architecture.gated,
        vocabulary=read.size("vocab_size"),
        tied=read.flag("tie_word_embeddings", architecture.tied),
        learned_positions=0
        if architecture.learned_positions is None
        else max_model_len + architecture.learned_positions,
        output_gate=read.flag("attn_output_gate", False),
        dtype_bytes=dtype_bytes,
        max_model_len=max_model_len,
        window=read.size("sliding_window", 0, least=0) or None,
        rotary_bytes=0
        if architecture.learned_positions is not None
        else _rotary_numbers(read, max_model_len, head_dim, "vision_config" in config) * dtype_bytes,
        experts=experts,
        latent=_latent(read),
        linear=_linear(read, dtype_bytes) if any(layer.attention == "linear" for layer in layers) else None,
        vision=_vision(config, hidden),
        large_pictures=isinstance(config.get("vision_config"), Mapping)
        and "spatial_merge_size" in config["vision_config"],
        quantization=quantization(merged),
        notes=() if key else (_unknown(name),),
    )


def _unknown(name: str) -> str:
    problem = f"the planner does not know the architecture {name}" if name else "config.json names no architecture"
    return f"{problem}: planned from its sizes alone, as a decoder with a gated MLP"


def _layers(read: _Config, architecture: Architecture) -> tuple[Layer, ...]:
    count = read.size("num_hidden_layers")
    if count > 10_000:
        raise Refused(
            f"config.json has num_hidden_layers: {count}, at most 10000 are possible. Download it again.",
            "model-damaged",
        )
    kinds = read.get("layer_types")
    if isinstance(kinds, list) and len(kinds) >= count:
        attention = [_attention(str(kind)) for kind in kinds[:count]]
    elif any(
        read.get(hybrid) is not None for hybrid in ("hybrid_override_pattern", "layers_block_type", "mamba_d_state")
    ):
        attention = [_attention("mamba")]  # refuses
    else:
        attention = _implied(read, architecture, count)
    if read.get("kv_lora_rank"):
        attention = ["latent"] * count
    return tuple(Layer(kind, _has_experts(read, index)) for index, kind in enumerate(attention))


def _attention(kind: str) -> Attention:
    if kind in _STATE_SPACE:
        raise Refused(
            f"the model has {kind} layers, whose memory the planner cannot compute. It can be served without a plan: "
            "set vllm_max_model_len to a number.",
            "model-unknown",
        )
    if kind == "linear_attention":
        return "linear"
    return "sliding" if kind in ("sliding_attention", "chunked_attention") else "full"


def _implied(read: _Config, architecture: Architecture, count: int) -> list[Attention]:
    """The kinds of attention, if the config does not list them."""
    if interval := read.size("full_attention_interval", 0, least=0):
        return ["full" if (index + 1) % interval == 0 else "linear" for index in range(count)]
    period = read.size("sliding_window_pattern", read.size("_sliding_window_pattern", 0, least=0), least=0)
    if not read.get("sliding_window") or not read.flag("use_sliding_window", True):
        return ["full"] * count
    if architecture.sliding == "all":
        return ["sliding"] * count
    if not period and ":" not in architecture.sliding:
        return ["full"] * count
    period = period or int(architecture.sliding.partition(":")[0]) + 1
    return ["full" if (index + 1) % period == 0 else "sliding" for index in range(count)]


def _has_experts(read: _Config, index: int) -> bool:
    if not read.get("num_experts"):
        return False
    listed = read.get("mlp_only_layers")
    if isinstance(listed, list) and index in listed:
        return False
    if index < read.size("first_k_dense_replace", 0, least=0):
        return False
    step = read.size("decoder_sparse_step", read.size("interleave_moe_layer_step", 1))
    return (index + 1) % step == 0 and index % read.size("moe_layer_freq", 1) == 0


def _experts(read: _Config) -> Experts | None:
    if not read.size("num_experts", 0, least=0):
        return None
    intermediate = read.size("moe_intermediate_size", read.size("intermediate_size", 0, least=0), least=0)
    if not intermediate:
        raise Refused(
            "config.json has experts, but no moe_intermediate_size. Set vllm_max_model_len to a number.",
            "model-unknown",
        )
    shared = read.size("shared_expert_intermediate_size", 0, least=0)
    shared += read.size("n_shared_experts", 0, least=0) * intermediate
    return Experts(read.size("num_experts"), read.size("num_experts_per_tok", 1), intermediate, shared)


def _latent(read: _Config) -> Latent | None:
    if not read.size("kv_lora_rank", 0, least=0):
        return None
    return Latent(
        kv_rank=read.size("kv_lora_rank"),
        q_rank=read.size("q_lora_rank", 0, least=0),
        rope_dim=read.size("qk_rope_head_dim"),
        nope_dim=read.size("qk_nope_head_dim"),
        value_dim=read.size("v_head_dim"),
    )


def _linear(read: _Config, dtype_bytes: int) -> Linear:
    return Linear(
        key_heads=read.size("linear_num_key_heads"),
        value_heads=read.size("linear_num_value_heads"),
        key_dim=read.size("linear_key_head_dim"),
        value_dim=read.size("linear_value_head_dim"),
        kernel=read.size("linear_conv_kernel_dim", 4),
        state_bytes=DTYPE_BYTES.get(str(read.get("mamba_ssm_dtype")), dtype_bytes),
    )


def _max_model_len(read: _Config) -> int:
    """The longest sequence, as vLLM derives it (vllm/config/model.py, _get_and_verify_max_len)."""
    length = read.size("max_position_embeddings", 2048)
    rope = _Config(read.section("rope_scaling") or read.section("rope_parameters") or {}, {})
    if _scaling(rope) == "yarn":
        return max(length, int(rope.size("original_max_position_embeddings", length) * rope.number("factor", 1.0)))
    return length


def _rotary_numbers(read: _Config, max_model_len: int, head_dim: int, sees: bool) -> int:
    """Numbers in the tables of rotary position embeddings (vllm/model_executor/layers/rotary_embedding)."""
    scaling = read.section("rope_scaling") or read.section("rope_parameters")
    rope, rows = _Config(scaling or {}, {}), float(max_model_len)
    if read.get("rope_local_base_freq") is not None:  # Gemma 3: a second table for the layers with sliding windows
        rows += max_model_len
        if scaling is None and sees:  # all released vision models have scaled positions
            rope = _Config({"rope_type": "linear", "factor": 8.0}, {})
    if _scaling(rope) == "linear":
        rows += max_model_len * (rope.number("factor", 1.0) - 1)
    turned = read.size("qk_rope_head_dim", head_dim) * min(read.number("partial_rotary_factor", 1.0), 1.0)
    return int(max(rows, 0) * turned)


def _scaling(rope: _Config) -> str | None:
    """How positions are scaled beyond the training length."""
    return _word(rope.get("rope_type")) or _word(rope.get("type"))


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _dtype_bytes(dtype: str) -> int:
    # vLLM computes in 16 bits even if the weights are stored in 32 (vllm/config/model.py, _resolve_auto_dtype).
    if dtype == "auto":
        return 2
    if dtype not in DTYPE_BYTES:
        raise Refused(f"dtype is {dtype}. Use auto or one of: {', '.join(DTYPE_BYTES)}.", "settings-invalid")
    return DTYPE_BYTES[dtype]


def _vision(config: Mapping[str, Any], hidden: int) -> int:
    """Numbers in the vision tower and its projector."""
    vision = config.get("vision_config")
    if not isinstance(vision, Mapping):
        return 0
    read = _Config(vision, {})
    fallback = VISION_DEFAULTS.get(str(vision.get("model_type")), (1152, 27, 4304, False))
    width = read.size("hidden_size", read.size("embed_dim", fallback[0]))
    depth = read.size("num_hidden_layers", read.size("depth", fallback[1]))
    mlp = read.size("intermediate_size", fallback[2])
    layer = 4 * width * width + (3 if fallback[3] else 2) * width * mlp
    # Qwen's towers merge 2 x 2 patches before the projector, the others none.
    merged = width * read.size("spatial_merge_size", 1) ** 2
    return depth * layer + merged * merged + merged * hidden + width * read.size("patch_size", 14) ** 2 * 3
