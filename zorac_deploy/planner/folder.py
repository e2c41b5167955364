"""Read a model's files, and plan it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zorac_deploy.errors import Refused
from zorac_deploy.planner import formats, llama_cpp, settings
from zorac_deploy.planner.config import from_config
from zorac_deploy.planner.engine import GIB
from zorac_deploy.planner.model import Model
from zorac_deploy.planner.plan import Plan, plan
from zorac_deploy.planner.setup import Setup
from zorac_deploy.planner.weights import weights_bytes
from zorac_host import model_manifest
from zorac_host.refusal import Refusal

# Tensors of these types are converted to the type for computing; others hold packed weights and stay as they are.
_COMPUTED = ("F64", "F32", "F16", "BF16")

# The format to which vLLM quantizes a full-precision model at load, by its flag `quantization`.
_AT_LOAD = {"bitsandbytes": {"quant_method": "bitsandbytes", "load_in_4bit": True}}

# A larger difference between files and config.json means different models: the formula is within 2 %.
_TOLERANCE = 0.1


def fit(folder: Path, setup: Setup) -> Plan:
    """Plan the model in `folder` for vLLM, or a GGUF model for llama.cpp.

    Args:
        folder: The model's directory; or a GGUF file, or the first of its parts.
        setup: The setup. Its other settings may quantize at load, or make the engine slower.

    Raises:
        Refused: The model is incomplete or cannot be planned; the engine or the GPU does not support its format; or a
            setting is invalid or slower.
    """
    if files := _gguf_files(folder):
        names = settings.unknown(setup.settings, llama_cpp=True)
        return _doubted(llama_cpp.fit(files, setup.card, setup.flags), names)
    card, engine, flags, config = setup.card, setup.engine, setup.flags, _config(folder)
    quantization, stored_as = setup.settings.get("quantization", ""), formats.quantized_by(config)
    at_load = None if stored_as else _AT_LOAD.get(quantization)
    others = {name: value for name, value in setup.settings.items() if name != "quantization" or value != stored_as}
    unknown = settings.unknown({**others, "quantization": ""} if at_load else others)
    if at_load:
        config = {**config, "quantization_config": at_load}
    formats.check(config, card, engine)
    formats.check_speed(config, setup.settings, card, engine)
    try:
        model = from_config(config, setup.dtype)
    except Refused as fault:
        if fault.refusal != "model-unknown":
            raise
        return plan(fault, card, engine, flags)
    stored, expected = _stored_gib(folder, model), weights_bytes(model, 1, wide_zero_points=False) / GIB
    if at_load:
        stored = None
    if stored and model.known and abs(stored - expected) > _TOLERANCE * expected:
        model = replace(
            model,
            notes=(
                *model.notes,
                f"the files have {stored:.2f} GiB of weights, but config.json describes {expected:.2f}. They may be of "
                "different models. The plan uses the larger number",
            ),
        )
        stored = max(stored, expected)
    return _doubted(plan(model, card, engine, flags, stored), unknown)


def _doubted(planned: Plan, unknown: Sequence[str]) -> Plan:
    """The plan, marked as uncertain if the planner does not know settings of these names."""
    if not unknown:
        return planned
    doubt = f"the planner does not know how much memory {', '.join(unknown)} {'take' if unknown[1:] else 'takes'}"
    if planned.verdict == "fits":
        return replace(planned, verdict="borderline", reason=f"{doubt}. Without: {planned.reason}")
    return replace(planned, notes=(*planned.notes, doubt))


def _gguf_files(model: Path) -> list[Path]:
    """The files of a GGUF model; empty if it has another format, or does not exist."""
    try:
        return list(model_manifest.gguf_files(model))
    except Refusal as fault:
        raise Refused(str(fault), fault.refusal) from None
    except OSError as fault:
        raise Refused(f"cannot read {str(model)[:80]}: {fault.strerror}.", "model-missing") from None


def _config(folder: Path) -> Mapping[str, Any]:
    if not folder.is_dir():
        raise Refused(f"model directory not found: {folder}. Name one with a config.json.", "model-missing")
    try:
        content = model_manifest.read_json(folder, "config.json")
    except Refusal as fault:
        raise Refused(str(fault), fault.refusal) from None
    if not isinstance(content, dict) or not content:
        raise Refused(f"{folder}/config.json has no settings. Download it again.", "model-damaged")
    return content


def _stored_gib(folder: Path, model: Model) -> float | None:
    """The size of the weights once loaded; None without files.

    Raises:
        Refused: A file is missing or truncated.
    """
    partial = sorted(folder.rglob("*.incomplete"))
    if partial:
        raise Refused(
            f"{folder} has {partial[0].name}: its download is in progress or was interrupted. Finish it.",
            "model-incomplete",
        )
    if not (folder / "model.safetensors.index.json").is_file() and not any(folder.glob("*.safetensors")):
        return None
    try:
        files = model_manifest.weight_files(folder)
        tensors = [tensor for file in files for tensor in model_manifest.read_header(file).items()]
    except Refusal as fault:
        raise Refused(str(fault), fault.refusal) from None
    return sum(_bytes(name, tensor, model) for name, tensor in tensors) / GIB


def _bytes(name: str, tensor: Mapping[str, Any], model: Model) -> int:
    if model.tied and name.endswith("lm_head.weight"):
        return 0  # a second copy of the embedding, which is not loaded
    begin, end = tensor["data_offsets"]
    if tensor["dtype"] in _COMPUTED:
        return int(math.prod(tensor["shape"])) * model.dtype_bytes
    return int(end - begin)
