"""Choose the files of a repository that an engine needs: one format of the weights, not three."""

import re
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import PurePosixPath
from typing import Any

from zorac_deploy.errors import Refused

# Mistral's and Meta's own formats beside the Hugging Face layout, and files that are no model.
_OTHER_WEIGHTS = ("consolidated*", "adapter_*", "optimizer*", "training_args*")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_SMALL = (
    "*.json",
    "*.jinja",
    "*.model",
    "*.tiktoken",
    "merges.txt",
    "vocab.txt",
    "LICEN[SC]E*",
    "NOTICE*",
    "USE_POLICY*",
)
_PART = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")


def needed(source: str, paths: Iterable[str], file: str, config: Mapping[str, Any], pickle: bool) -> list[str]:
    """The files of `paths` that are needed to serve the model.

    Weights are taken in one format: safetensors, then GGUF, then pickles if they are allowed. Programs (``*.py``) are
    included if config.json names them; an engine runs them only with a flag.

    Args:
        source: The source, for messages.
        paths: All files of the repository.
        file: The requested GGUF file; empty for the whole model.
        config: The content of config.json; empty if there is none.
        pickle: Whether weights may be pickles.

    Raises:
        Refused: The repository has no model, several, or none that is safe to load.
    """
    visible = sorted(path for path in paths if not any(part[0] == "." for part in PurePosixPath(path).parts))
    top = [path for path in visible if "/" not in path]
    weights = _own_weights(top, "*.safetensors")
    if file or not weights:
        files = [path for path in visible if path.endswith(".gguf")]
        if file or files:
            return _gguf(source, files, file)
    if not weights:
        weights = _pickles(source, top, pickle)
    indexes = [path for path in _matching(top, "*.index.json") if not _belongs(path, weights)]
    small = set(_matching(top, *_SMALL, *(["*.py"] if "auto_map" in config else []))) - set(indexes)
    return sorted({*weights, *small})


def _own_weights(paths: list[str], *patterns: str) -> list[str]:
    """Those of `paths` with the model's weights; Mistral's own format only if there is no other."""
    weights = [path for path in _matching(paths, *patterns) if not fnmatch(path, "adapter_*")]
    return [path for path in weights if not any(fnmatch(path, other) for other in _OTHER_WEIGHTS)] or [
        path for path in weights if fnmatch(path, "consolidated*")
    ]


def _pickles(source: str, paths: list[str], allowed: bool) -> list[str]:
    weights = _own_weights(paths, *_PICKLES)
    if not weights:
        raise Refused(
            f"{source} has no weights: no *.safetensors and no *.gguf. Name the repository of a model.",
            "model-incomplete",
        )
    if not allowed:
        raise Refused(
            f"{source} has its weights only as pickles ({weights[0]}), and loading a pickle runs code from it. Use a "
            "model with *.safetensors files. If you trust its author, set model_weights_pickle_allowed: true.",
            "model-unsafe",
        )
    return weights


def _gguf(source: str, files: list[str], file: str) -> list[str]:
    """The requested GGUF file with its other parts; by default the only one."""
    first = file or files[0]
    part = _PART.search(first)
    parts = [path for path in files if part and _PART.sub("", path) == _PART.sub("", first)] or [first]
    if file and file not in files:
        raise Refused(f"{source}: file not found. Available: {', '.join(files) or 'no GGUF files'}.", "model-missing")
    if not file and parts != files:
        raise Refused(
            f"{source} has several GGUF models: {', '.join(files)}. Name one: {source}/FILE.", "model-incomplete"
        )
    if part and len(parts) != int(part[1]):
        raise Refused(
            f"{source} has {len(parts)} of the {int(part[1])} parts of {first}. Name another model.", "model-incomplete"
        )
    return parts


def _matching(paths: list[str], *patterns: str) -> list[str]:
    return [path for path in paths if any(fnmatch(path, pattern) for pattern in patterns)]


def _belongs(index: str, weights: list[str]) -> bool:
    """Whether `index` lists `weights`, as ``model.safetensors.index.json`` lists ``model-1-of-2.safetensors``."""
    stem = index.removesuffix(".index.json")
    return any(
        path.startswith(stem.partition(".")[0]) and path.endswith(PurePosixPath(stem).suffix) for path in weights
    )
