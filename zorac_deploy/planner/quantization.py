"""How a checkpoint's weights are packed, from its quantization_config."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from zorac_deploy.errors import Refused


@dataclass(frozen=True)
class Quantization:
    """The bits of a quantized weight, and its scales and zero points.

    Attributes:
        method: The config's name for it; empty if nothing is quantized.
        bits: Bits of one weight.
        group: How many weights of a row share a scale; 0 for a whole row or matrix.
        scale_bytes: Bytes of one scale.
        zero_points: Whether each group also has a zero point.
        ignored: Names of modules that are not quantized, as patterns.
        experts_only: Whether only the experts are quantized.
        small_cache: Whether the checkpoint requires an 8-bit KV cache if the flags leave it open.
    """

    method: str = ""
    bits: float = 16
    group: int = 0
    scale_bytes: int = 2
    zero_points: bool = False
    ignored: tuple[str, ...] = ()
    experts_only: bool = False
    small_cache: bool = False

    def leaves(self, module: str) -> bool:
        """Whether the module called `module`, such as ``lm_head``, stays unquantized."""
        return not self.method or any(_matches(pattern, module) for pattern in self.ignored)


def _matches(pattern: str, module: str) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.match(pattern[3:], module) is not None
        except re.error:
            return False
    return pattern in module


def quantization(config: Mapping[str, Any]) -> Quantization:
    """Parse the ``quantization_config`` of `config`.

    Raises:
        Refused: The planner does not know the format.
    """
    settings = config.get("quantization_config") or config.get("compression_config")
    if not isinstance(settings, Mapping):
        return Quantization()
    scheme = settings.get("kv_cache_scheme")
    small = scheme.get("num_bits") == 8 if isinstance(scheme, Mapping) else settings.get("kv_cache_quant_algo") == "FP8"
    return replace(_weights(settings), small_cache=small)


def _weights(settings: Mapping[str, Any]) -> Quantization:
    """How the weights are packed."""
    method = str(settings.get("quant_method") or settings.get("quantization_method") or "").lower()
    ignored = _names(settings.get("ignore")) + _names(settings.get("modules_to_not_convert"))
    if method.startswith("compressed"):
        return _compressed_tensors(settings, ignored)
    if method.startswith(("awq", "gptq")):
        return _grouped(settings, method, ignored)
    if method in ("fp8", "fbgemm_fp8", "modelopt") and "fp4" not in str(settings.get("quant_algo", "")).lower():
        blocks = settings.get("weight_block_size")
        sides = [side for side in blocks if isinstance(side, int) and side > 0] if isinstance(blocks, list) else []
        group = sides[0] * sides[1] if len(sides) == 2 else 0
        return Quantization(method, 8, group, 4, False, ("lm_head", *ignored))
    if method in ("modelopt", "modelopt_fp4"):
        return Quantization(method, 4, 16, 1, False, ("lm_head", *ignored))
    if method == "mxfp4":
        # gpt-oss: 32 weights share an exponent of one byte; the config may omit the ignored modules.
        return Quantization(method, 4, 32, 1, False, ("lm_head", *ignored), experts_only=True)
    if method in ("bitsandbytes", "bnb"):
        four = bool(settings.get("load_in_4bit", settings.get("_load_in_4bit", not settings.get("load_in_8bit"))))
        # bitsandbytes stores one 32-bit scale per 64 weights (its default block); with 8 bits one per row.
        return Quantization(method, 4 if four else 8, 64 if four else 0, 4, False, ("lm_head", *ignored))
    raise Refused(
        f"the planner does not know the quantization {method or 'without a name'}. Set vllm_max_model_len to a number.",
        "model-unknown",
    )


def _names(value: object) -> tuple[str, ...]:
    return tuple(str(name) for name in value) if isinstance(value, list) else ()


def _number(settings: Mapping[str, Any], name: str, default: int) -> int:
    value = settings.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value <= 2**20:
        raise Refused(f"quantization_config has {name}: {value!r}, but a whole number is needed.", "model-damaged")
    return value


def _compressed_tensors(settings: Mapping[str, Any], ignored: tuple[str, ...]) -> Quantization:
    """The scheme of the first group for all quantized modules: llmcompressor writes one group."""
    groups = settings.get("config_groups")
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    scheme: Mapping[str, Any] = weights if isinstance(weights, Mapping) else settings
    named = str(settings.get("format") or settings.get("quant_method"))
    bits = _bits(scheme, "num_bits", _bits(scheme, "bits", 8))
    group = max(_number(scheme, "group_size", 0), 0)
    fp4 = bits == 4 and (scheme.get("type") == "float" or "fp4" in named)
    zero_points = not fp4 and scheme.get("symmetric") is False
    return Quantization("compressed-tensors", bits, group or (16 if fp4 else 0), 1 if fp4 else 2, zero_points, ignored)


def _grouped(settings: Mapping[str, Any], method: str, ignored: tuple[str, ...]) -> Quantization:
    group = max(_number(settings, "group_size", _number(settings, "q_group_size", 128)), 0)
    zero_points = bool(settings.get("zero_point", method.startswith("awq") or not settings.get("sym", True)))
    bits = _bits(settings, "bits", _bits(settings, "w_bit", 4))
    left = () if settings.get("lm_head") is True else ("lm_head",)
    return Quantization(method, bits, group, 2, zero_points, (*left, *ignored))


def _bits(settings: Mapping[str, Any], name: str, default: int) -> int:
    bits = _number(settings, name, default)
    if bits not in (2, 3, 4, 8, 16):
        raise Refused(f"quantization_config has {name}: {bits}, but 2, 3, 4, 8 or 16 is needed.", "model-damaged")
    return bits
