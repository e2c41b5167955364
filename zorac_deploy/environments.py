"""Separate Python environments for programs whose packages are incompatible with others."""

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import platformdirs

from zorac_deploy.errors import ZoracDeployError

_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
_DONE = "installed.txt"


def ensure(name: str, lock: Path) -> Path:
    """The Python of an environment with the packages of `lock`, created on first use and cached.

    Raises:
        ZoracDeployError: The installation failed.
    """
    environment = path(name, lock)
    environment.parent.mkdir(parents=True, exist_ok=True)
    with environment.with_name(f"{environment.name}.lock").open("w") as lock_file:
        fcntl.flock(lock_file, fcntl.LOCK_EX)  # another run may be creating it
        if not is_there(name, lock):
            make(environment, lock)
            (environment / _DONE).touch()
    return environment / "bin" / "python"


def path(name: str, lock: Path) -> Path:
    """The directory of the environment. Another content of the lock gives another directory."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:8]
    return _cache() / "environments" / f"{name}-{digest}"


def is_there(name: str, lock: Path) -> bool:
    """Whether the environment was installed completely."""
    return (path(name, lock) / _DONE).is_file()


def make(environment: Path, lock: Path, package: str = "") -> Path:
    """Rebuild the directory `environment` from `lock`, or only with `package` of it, and return its Python.

    Raises:
        ZoracDeployError: The installation failed.
    """
    python = environment / "bin" / "python"
    _uv("venv", "--clear", "--python", _python(lock), str(environment))
    if package:
        _uv("pip", "install", "--python", str(python), "--no-deps", "--constraint", str(lock), package)
    else:
        _uv("pip", "sync", "--python", str(python), *_sources(lock), str(lock))
    return python


def _python(lock: Path) -> str:
    """The running Python, unless the lock is for one version only, as those with torch for the CPU are."""
    return "3.11" if _is_for_cpu(lock) else sys.executable


def _sources(lock: Path) -> list[str]:
    """The source of torch for the CPU: pip's own find-links directories if set, otherwise PyTorch's index."""
    if not _is_for_cpu(lock):
        return []
    folders = os.environ.get("PIP_FIND_LINKS", "").split()
    options = [("--find-links", folder) for folder in folders] or [("--extra-index-url", _TORCH_INDEX)]
    return [word for option in options for word in option]


def _is_for_cpu(lock: Path) -> bool:
    return "+cpu" in lock.read_text(encoding="utf-8")


def _uv(*arguments: str) -> None:
    import uv  # here: few commands need it

    command = (uv.find_uv_bin(), *arguments, "--quiet", "--cache-dir", str(_cache() / "uv"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ZoracDeployError(f"cannot create the Python environment; uv reported:\n{done.stderr[-2000:]}")


def _cache() -> Path:
    return platformdirs.user_cache_path("zorac-deploy")
