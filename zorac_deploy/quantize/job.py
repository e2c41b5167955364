"""Describe a quantization, and check it before the work begins."""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from zorac_deploy import environments
from zorac_deploy.errors import Refused
from zorac_deploy.models import Resolved, resolve
from zorac_deploy.models.source import local_name, local_path
from zorac_deploy.planner import formats
from zorac_deploy.quantize import recipe as recipes
from zorac_host import model_manifest

Device = Literal["cpu", "cuda"]

_LOCKS = Path(__file__).parent / "locks"
_GIB = 2**30
# The size of the environment on disk, and of torch and its libraries in memory without a model; measured.
_ENVIRONMENT_GIB: dict[Device, float] = {"cpu": 1.4, "cuda": 7.0}
_PROGRAM_GIB = 1.5
# A sample's activations between two layers exist several times: the input, AWQ's copies, the output.
_COPIES = 8
# Calibration needs a tokenizer that transformers reads; tekken.json is for vLLM only.
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")


@dataclass(frozen=True)
class Job:
    """A quantization to do.

    Attributes:
        model: The model: its source, and its files.
        output: The output directory.
        recipe: The recipe.
        calibration: A text file, a file with a JSON object per line, ``hf://`` and a data set's name, or empty for the
            book in the environment.
        samples: The number of calibration samples.
        length: Tokens of each.
        device: The device that computes.
        bytes_before: The size of the source's weights.
        bytes_after: The estimated size of the output's weights.
        memory_gib: The estimated memory.
    """

    model: Resolved
    output: Path
    recipe: recipes.Recipe
    calibration: str
    samples: int
    length: int
    device: Device
    bytes_before: int
    bytes_after: int
    memory_gib: float

    @property
    def environment(self) -> tuple[str, Path]:
        """The name and the lock of the environment."""
        return f"quantize-{self.device}", _LOCKS / f"{self.device}.txt"


def prepare(
    source: str,
    recipe: str,
    output: Path | None = None,
    calibration: str = "",
    samples: int = 128,
    length: int = 512,
    group_size: int | None = None,
    device: Device = "cpu",
) -> Job:
    """Check everything that can be known beforehand, for a remote model from its headers.

    Raises:
        Refused: It cannot work; nothing was changed.
    """
    parsed = recipes.read(recipe, group_size)
    model = resolve(source)
    folder = Path(model.folder)
    name = local_name(folder)
    # A hub's cache is not for outputs.
    beside = folder.parent if model.kind == "copy" and name == folder.name else Path()
    output = local_path(output or beside / f"{name}-{parsed.name}")
    if output.exists():
        raise Refused(f"{output} exists. Remove it, or name another directory with --output.", "settings-invalid")
    if calibration and not calibration.startswith("hf://"):
        calibration = str(_text(local_path(calibration)))
    tensors = _read(model)
    layers = _layers(tensors)
    recipes.check(parsed, layers)
    before = sum(map(_stored, tensors.values()))
    saved = sum(_saved(layer, group) for layer in layers if (group := parsed.group_of(layer)))
    hidden = max(layer.inputs for layer in layers)
    memory = before / _GIB + _PROGRAM_GIB + samples * length * hidden * 2 * _COPIES / _GIB
    job = Job(
        model=model,
        output=output,
        recipe=parsed,
        calibration=calibration,
        samples=samples,
        length=length,
        device=device,
        bytes_before=before,
        bytes_after=max(before - saved, 0),
        memory_gib=memory,
    )
    _require_room(job)
    return job


def _text(path: Path) -> Path:
    if not path.is_file() or not path.stat().st_size:
        raise Refused(f"{path} has no text. Name a text file with --calibration, or leave it out.", "settings-invalid")
    return path


def _read(model: Resolved) -> dict[str, dict[str, Any]]:
    """The tensors of a model that can be quantized."""
    folder, source = Path(model.folder), model.source
    if model.manifest["format"] != "safetensors":
        raise Refused(
            f"{source} is a GGUF file, which is already quantized. Use the original model in safetensors.",
            "format-unsupported",
        )
    method = formats.quantized_by(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    if method:
        raise Refused(f"{source} is already quantized by {method}. Use the original model.", "format-unsupported")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise Refused(
            f"{source} has only tekken.json, but calibration needs {' or '.join(_TOKENIZERS)}. Download one of them.",
            "model-incomplete",
        )
    headers = [model_manifest.read_header(file) for file in model_manifest.weight_files(folder)]
    return {name: tensor for header in headers for name, tensor in header.items()}


def _layers(tensors: Mapping[str, Mapping[str, Any]]) -> list[recipes.Layer]:
    """The linear layers: matrices called weight, except embeddings; and the head, even if tied to an embedding."""
    matrices = {
        name.removesuffix(".weight"): tensor["shape"]
        for name, tensor in tensors.items()
        if name.endswith(".weight") and len(tensor["shape"]) == 2
    }
    embeddings = {name: shape for name, shape in matrices.items() if "embed" in name or name.endswith(("wte", "wpe"))}
    linear = {name: shape for name, shape in matrices.items() if name not in embeddings}
    if not linear:
        raise Refused("the model has no linear layers to quantize.", "format-unsupported")
    if not any(name.endswith("lm_head") for name in linear) and embeddings:
        linear["lm_head"] = next(iter(embeddings.values()))
    return [recipes.Layer(name, inputs=shape[1], outputs=shape[0]) for name, shape in linear.items()]


def _stored(tensor: Mapping[str, Any]) -> int:
    begin, end = tensor["data_offsets"]
    return int(end) - int(begin)


def _saved(layer: recipes.Layer, group: recipes.Group) -> int:
    """The bytes saved by quantizing a layer in 16 bits. A scale takes two bytes, a zero point half a byte."""
    weights = layer.inputs * layer.outputs
    scales = weights / (group.size or layer.inputs)
    return math.floor(weights * (2 - group.bits / 8) - scales * 2.5)


def _require_room(job: Job) -> None:
    """Require enough disk space and memory."""
    needs: dict[Path, float] = {_existing(job.output.parent): job.bytes_after * 1.1}
    if not environments.is_there(*job.environment):
        cache = _existing(environments.path(*job.environment).parent)
        needs[cache] = needs.get(cache, 0) + _ENVIRONMENT_GIB[job.device] * _GIB
    for folder, needed in needs.items():
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise Refused(
                f"{folder} needs {needed / _GIB:.1f} GiB, but {free / _GIB:.1f} GiB are free. Free some space, or name "
                "another directory with --output.",
                "disk-full",
            )
    available = _available_gib()
    if available is not None and available < job.memory_gib:
        raise Refused(
            f"quantizing needs {job.memory_gib:.1f} GiB of memory, but {available:.1f} GiB are available. "
            "Use fewer --samples, a shorter --length, or a machine with more memory.",
            "model-does-not-fit",
        )


def _existing(folder: Path) -> Path:
    return next(candidate for candidate in (folder, *folder.parents) if candidate.is_dir())


def _available_gib() -> float | None:
    """The memory available without swapping; None if the system does not report it."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024 / _GIB
