"""Which checkpoint formats an engine serves on which GPUs, and which settings make it slower.

From the quantization methods of vLLM 0.26.0 and 0.32.0 (vllm/model_executor/layers/quantization), their
get_min_capability, and the order and the names of its kernels (vllm/model_executor/kernels/linear).
"""

from collections.abc import Mapping
from typing import Any

from zorac_deploy import content
from zorac_deploy.errors import Refused
from zorac_deploy.planner.engine import Card, Engine
from zorac_host import slow_kernels

Compute = tuple[int, int]

# By quant_method, the compute capability that a GPU needs, if more than every engine here needs.
# FP8 is not listed: below 8.9 Marlin unpacks such weights, and they are computed in 16 bits.
_METHODS: dict[str, Compute] = {
    "awq": (7, 5),
    "bitsandbytes": (7, 0),
    "compressed-tensors": (7, 0),
    "deepseek_v4_fp8": (7, 5),
    "experts_int8": (8, 0),
    "fbgemm_fp8": (8, 0),
    "fp8": (7, 5),
    "fp_quant": (10, 0),
    "gpt_oss_mxfp4": (8, 0),
    "gptq": (6, 0),
    "humming": (7, 5),
    "inc": (6, 0),
    "auto-round": (6, 0),
    "modelopt": (7, 5),
    "modelopt_fp4": (7, 5),
    "modelopt_mixed": (8, 0),
    "modelopt_mxfp8": (7, 5),
    "mxfp4": (8, 0),
    "mxfp8": (7, 5),
    "quark": (7, 0),
    "torchao": (7, 5),
}
# The formats tested with an engine on the CPU, in this project's sandbox. Others are untested.
_ON_A_PROCESSOR = ("awq", "bitsandbytes", "compressed-tensors", "gptq")
# vLLM's own code for bitsandbytes left its core with 0.28; the package with the kernels was never part of it.
_BNB_PACKAGES = {"bitsandbytes": (0, 0), "vllm-bnb-plugin": (0, 28)}

# The slow kernels that linear_backend can choose for 4-bit integers.
_BACKENDS = {"conch": "ConchLinearKernel", "exllama": "ExllamaLinearKernel", "triton": "TritonW4A16LinearKernel"}
# Until these versions, a method requested by name was not replaced by its faster one.
_FORCED_UNTIL = {"awq": (0, 24), "gptq": (0, 23)}


def check(config: Mapping[str, Any], card: Card, engine: Engine) -> None:
    """Require that `engine` supports the checkpoint's format, and that `card` has the compute capability.

    Raises:
        Refused: The engine or the GPU does not support it.
    """
    method = quantized_by(config)
    if not method:
        return
    if method not in _METHODS or (engine.processor and method not in _ON_A_PROCESSOR):
        known = _ON_A_PROCESSOR if engine.processor else tuple(_METHODS)
        raise _unsupported(
            f"the model is quantized by {method}, which the engine {engine.name} "
            f"{'is not known to serve on a CPU' if method in _METHODS else 'does not know'}. Use a checkpoint "
            f"quantized by one of: {', '.join(known)}; or the original model."
        )
    needed = _needed(method, config)
    if not engine.processor and card.compute and card.compute < needed:
        raise _unsupported(
            f"the model is quantized by {method}, which needs compute capability {_text(needed)}, but {card.name} has "
            f"{_text(card.compute)}. Use an AWQ or GPTQ checkpoint of the same model."
        )
    if method == "bitsandbytes":
        _require_packages(engine)


def check_speed(config: Mapping[str, Any], settings: Mapping[str, str], card: Card, engine: Engine) -> None:
    """Require that no setting forces a slower kernel than the best for `card`: such a start would be rolled back.

    Args:
        config: The model's config.json.
        settings: Flags of the engine with underscores for dashes, and its environment.
        card: The GPU.
        engine: The engine.

    Raises:
        Refused: A setting forces a slower kernel.
    """
    if engine.processor or not card.compute:
        return
    for setting, kernel in _forced(config, settings, card.compute, engine):
        known = slow_kernels.SLOW[kernel]
        if card.compute >= known.compute:
            raise Refused(
                f"{setting} forces the kernel {kernel}, but the much faster {known.better[0]} runs on this GPU "
                f"({card.name}, compute capability {_text(card.compute)}). Remove the setting: vLLM then chooses the "
                "faster kernel.",
                "setting-slower",
            )


def _forced(
    config: Mapping[str, Any], settings: Mapping[str, str], compute: Compute, engine: Engine
) -> list[tuple[str, str]]:
    """The settings that force a kernel, with the kernel."""
    forced = []
    quantization = settings.get("quantization", "")
    if quantization == quantized_by(config) and engine.version < _FORCED_UNTIL.get(quantization, (0, 0)):
        forced.append((f"quantization: {quantization} in vllm_service_extra_flags", quantization))
    if not _four_bits(config):
        return forced
    backend = settings.get("linear_backend", "").lower()
    if backend in _BACKENDS:
        forced.append((f"linear_backend: {backend} in vllm_service_extra_flags", _BACKENDS[backend]))
    disabled = settings.get("VLLM_DISABLED_KERNELS", "").split(",")
    # Machete is for Hopper only, and there as good as Marlin.
    if "MarlinLinearKernel" in disabled and (compute[0] != 9 or "MacheteLinearKernel" in disabled):
        forced.append(("VLLM_DISABLED_KERNELS in vllm_environment", "ExllamaLinearKernel"))
    if settings.get("VLLM_BATCH_INVARIANT", "0") != "0" and quantized_by(config) == "awq":
        forced.append(("VLLM_BATCH_INVARIANT in vllm_environment", "awq"))
    return forced


def quantized_by(config: Mapping[str, Any]) -> str:
    """The checkpoint's quantization method, in vLLM's terms; empty for none."""
    settings = config.get("quantization_config") or config.get("compression_config")
    named = settings.get("quant_method") or settings.get("quantization_method") if isinstance(settings, Mapping) else ""
    name = str(named or "").lower()
    return {"bnb": "bitsandbytes"}.get(name, "compressed-tensors" if name.startswith("compressed") else name)


def _weights(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The first group's description of weights in compressed-tensors; empty for other methods."""
    settings = config.get("quantization_config") or {}
    groups = settings.get("config_groups") if isinstance(settings, Mapping) else None
    first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
    weights = first.get("weights") if isinstance(first, Mapping) else None
    return weights if isinstance(weights, Mapping) else {}


def _four_bits(config: Mapping[str, Any]) -> bool:
    """Whether weights are 4-bit integers that are computed in 16 bits."""
    weights = _weights(config)
    return quantized_by(config) in ("awq", "gptq") or (weights.get("num_bits") == 4 and weights.get("type") == "int")


def _needed(method: str, config: Mapping[str, Any]) -> Compute:
    """The compute capability for this checkpoint."""
    algorithm = str((config.get("quantization_config") or {}).get("quant_algo", "")).upper()
    if method == "modelopt" and algorithm == "FP8":
        return (8, 9)
    weights = _weights(config)
    if weights.get("type") == "float" and weights.get("num_bits") == 4 and weights.get("group_size") == 32:
        return (8, 0)  # MXFP4; NVFP4 has groups of 16 and runs anywhere
    return _METHODS[method]


def _require_packages(engine: Engine) -> None:
    """Require that the engine's lock has what bitsandbytes needs."""
    lock = content.role_file("engine", f"locks/{engine.name}.txt")
    if not lock.is_file():
        return
    packages = {line.partition("==")[0] for line in lock.read_text(encoding="utf-8").splitlines() if line[:1].isalpha()}
    missing = [name for name, since in _BNB_PACKAGES.items() if engine.version >= since and name not in packages]
    if missing:
        raise _unsupported(
            f"the model is quantized by bitsandbytes, but {engine.name} comes without {' and '.join(missing)}."
            " Set vllm_engine_lock to a lock that has it, or use an AWQ or GPTQ checkpoint, which is also faster."
        )


def _text(compute: Compute) -> str:
    return f"{compute[0]}.{compute[1]}"


def _unsupported(message: str) -> Refused:
    return Refused(message, "format-unsupported")
