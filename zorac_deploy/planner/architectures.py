"""The defaults of settings that a model's config.json leaves out, by architecture.

Hugging Face writes only what differs from a class's defaults, so a config cannot be read without them. Sources: the
configuration classes of transformers 4.57, and vLLM's model files where they decide what is loaded.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Architecture:
    """The properties shared by all models of one architecture.

    Attributes:
        gated: Whether the MLP has a gate, and so three matrices instead of two.
        tied: Whether input and output embedding are one matrix, if the config does not say.
        sliding: Which layers use sliding-window attention, if the config does not list them: ``none``, ``all``, or
            ``n:1``
            for n such layers before each one with full attention.
        learned_positions: How many rows the position table has beyond the length; None if there is no table.
        defaults: Defaults of settings that the config may leave out.
    """

    gated: bool = True
    tied: bool = False
    sliding: str = "none"
    learned_positions: int | None = None
    defaults: Mapping[str, object] = field(default_factory=dict)


_DENSE = Architecture()
_PLAIN_MLP = Architecture(gated=False)
_TIED = Architecture(tied=True)
_GEMMA = Architecture(tied=True, defaults={"head_dim": 256, "vocab_size": 256000, "max_position_embeddings": 8192})
_QWEN3_NEXT = Architecture(
    defaults={
        "head_dim": 256,
        "attn_output_gate": True,
        "full_attention_interval": 4,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
    }
)
_QWEN3_5 = Architecture(tied=False, defaults={**_QWEN3_NEXT.defaults, "mamba_ssm_dtype": "float32"})
_MLA = Architecture(
    defaults={
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 128,
        "v_head_dim": 128,
        "first_k_dense_replace": 0,
        "moe_layer_freq": 1,
    }
)

# By model_type, as spelled in the config.
ARCHITECTURES: dict[str, Architecture] = {
    "llama": _DENSE,
    "mistral": Architecture(sliding="all"),
    "ministral": Architecture(sliding="3:1"),
    "ministral3": _DENSE,
    "qwen2": _DENSE,
    "qwen2_5": _DENSE,
    "qwen2_vl": _DENSE,
    "qwen2_vl_text": _DENSE,
    "qwen2_5_vl": _DENSE,
    "qwen2_5_vl_text": _DENSE,
    "qwen3": Architecture(defaults={"head_dim": 128}),
    "qwen3_vl_text": Architecture(defaults={"head_dim": 128}),
    "qwen2_moe": Architecture(defaults={"decoder_sparse_step": 1}),
    "qwen3_moe": Architecture(defaults={"decoder_sparse_step": 1}),
    "qwen3_vl_moe_text": Architecture(defaults={"decoder_sparse_step": 1}),
    "qwen3_next": _QWEN3_NEXT,
    "qwen3_5_text": _QWEN3_5,
    "qwen3_5_moe_text": _QWEN3_5,
    "gemma": _GEMMA,
    "gemma2": Architecture(tied=True, sliding="1:1", defaults={**_GEMMA.defaults, "sliding_window": 4096}),
    "gemma3_text": Architecture(
        tied=True,
        sliding="5:1",
        defaults={
            "head_dim": 256,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "vocab_size": 262208,
            "sliding_window": 4096,
            "max_position_embeddings": 131072,
            "rope_local_base_freq": 10000.0,
        },
    ),
    "phi": _PLAIN_MLP,
    "phi3": Architecture(sliding="all"),
    "phimoe": _DENSE,
    "granite": _DENSE,
    "granitemoe": _DENSE,
    "mixtral": _DENSE,
    "olmo": _DENSE,
    "olmo2": _DENSE,
    "olmo3": Architecture(sliding="3:1"),
    "olmoe": _DENSE,
    "deepseek": _DENSE,
    "deepseek_v2": _MLA,
    "deepseek_v3": _MLA,
    "kimi_k2": _MLA,
    "gpt_oss": Architecture(sliding="1:1", defaults={"head_dim": 64, "sliding_window": 128}),
    "cohere": _TIED,
    "cohere2": Architecture(tied=True, sliding="3:1", defaults={"sliding_window": 4096}),
    "internlm2": _DENSE,
    "exaone": _DENSE,
    "exaone4": Architecture(sliding="3:1"),
    "glm": _DENSE,
    "glm4": _DENSE,
    "glm4_moe": Architecture(defaults={"first_k_dense_replace": 1}),
    "smollm3": _TIED,
    "seed_oss": _DENSE,
    "ernie4_5": _TIED,
    "stablelm": _DENSE,
    "nemotron": _PLAIN_MLP,
    "starcoder2": Architecture(gated=False, tied=True),
    "falcon": Architecture(gated=False, tied=True),
    "gpt_neox": _PLAIN_MLP,
    "gpt_bigcode": Architecture(gated=False, tied=True, learned_positions=0),
    "gpt2": Architecture(gated=False, tied=True, learned_positions=0),
    "opt": Architecture(gated=False, tied=True, learned_positions=2, defaults={"max_position_embeddings": 2048}),
}

# A vision-language model wraps its language model; these wrappers have other names.
_WRAPPERS = {"mistral3": "mistral", "kimi_vl": "deepseek_v3"}


def find(model_type: str | None, class_name: str | None) -> str | None:
    """The key of ARCHITECTURES for a config's ``model_type`` or, without one, for its class; None if unknown."""
    stem = re.sub(r"(ForCausalLM|ForConditionalGeneration|LMHeadModel)$", "", class_name or "").lower()
    plain = (model_type or stem).replace("_", "").lower()
    names = {key.replace("_", ""): key for key in ARCHITECTURES}
    names |= {wrapper.replace("_", ""): key for wrapper, key in _WRAPPERS.items()}
    return names.get(plain) or names.get(plain + "text")


# Synonyms.
ALIASES: dict[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "num_layers"),
    "num_attention_heads": ("n_head",),
    "num_key_value_heads": ("num_kv_heads", "n_head_kv"),
    "intermediate_size": ("ffn_dim", "n_inner", "ffn_hidden_size"),
    "max_position_embeddings": ("n_positions", "max_sequence_length", "seq_length"),
    "num_experts": ("num_local_experts", "n_routed_experts", "moe_num_experts"),
    "num_experts_per_tok": ("num_experts_per_token", "moe_topk", "top_k_experts"),
}

# The vision towers: (hidden size, layers, MLP size, whether the MLP is gated), if the config leaves them out.
VISION_DEFAULTS: dict[str, tuple[int, int, int, bool]] = {
    "siglip_vision_model": (1152, 27, 4304, False),  # the tower of Gemma 3; no model here uses the class's own defaults
    "pixtral": (1024, 24, 4096, True),
    "moonvit": (1152, 27, 4304, False),
    "clip_vision_model": (1024, 24, 4096, False),
}
