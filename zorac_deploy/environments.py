"""Python environments of their own, for programs whose packages go together with nobody else's."""

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
    """The Python of an environment that holds what `lock` names, made unless it is there, and kept for the next time.

    Raises:
        ZoracDeployError: It could not be installed.
    """
    environment = path(name, lock)
    environment.parent.mkdir(parents=True, exist_ok=True)
    with environment.with_name(f"{environment.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # another run may be making it
        if not is_there(name, lock):
            make(environment, lock)
            (environment / _DONE).touch()
    return environment / "bin" / "python"


def path(name: str, lock: Path) -> Path:
    """The folder of the environment. A lock that says something else is another one."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:8]
    return _cache() / "environments" / f"{name}-{digest}"


def is_there(name: str, lock: Path) -> bool:
    """Whether the environment was installed to the end."""
    return (path(name, lock) / _DONE).is_file()


def make(environment: Path, lock: Path, package: str = "") -> Path:
    """Make the folder `environment` anew with what `lock` names, or `package` of it alone, and return its Python.

    Raises:
        ZoracDeployError: It could not be installed.
    """
    python = environment / "bin" / "python"
    _uv("venv", "--clear", "--python", _python(lock), str(environment))
    if package:
        _uv("pip", "install", "--python", str(python), "--no-deps", "--constraint", str(lock), package)
    else:
        _uv("pip", "sync", "--python", str(python), *_sources(lock), str(lock))
    return python


def _python(lock: Path) -> str:
    """Our own, unless the lock holds for one version alone, as those with a torch for the processor do."""
    return "3.11" if _for_the_processor(lock) else sys.executable


def _sources(lock: Path) -> list[str]:
    """Where torch for the processor comes from: pip's own find-links folders if there are any, else PyTorch's index."""
    if not _for_the_processor(lock):
        return []
    folders = os.environ.get("PIP_FIND_LINKS", "").split()
    options = [("--find-links", folder) for folder in folders] or [("--extra-index-url", _TORCH_INDEX)]
    return [word for option in options for word in option]


def _for_the_processor(lock: Path) -> bool:
    return "+cpu" in lock.read_text(encoding="utf-8")


def _uv(*arguments: str) -> None:
    import uv  # here, for only few commands need it

    command = (uv.find_uv_bin(), *arguments, "--quiet", "--cache-dir", str(_cache() / "uv"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ZoracDeployError(f"cannot create the Python environment; uv reported:\n{done.stderr[-2000:]}")


def _cache() -> Path:
    return platformdirs.user_cache_path("zorac-deploy")
