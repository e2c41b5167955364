"""Download the wheels that an engine's lock names, for a Python that may differ from the running one."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

from zorac_deploy import content
from zorac_deploy.bundle.about import SOURCES, WHEELS, Engine, OnStep, System
from zorac_deploy.errors import Refused, ZoracDeployError

_AT_ONCE = 20


def settings(lock: str) -> dict[str, Any]:
    """What the engine `lock` needs: ``python_versions``, ``required_gib``, ``system_packages``, ``extra_index_urls``.

    Raises:
        Refused: No lock has this name.
    """
    if not _lock_file(lock).is_file():
        names = ", ".join(sorted(path.stem for path in _lock_file(lock).parent.glob("*.txt")))
        raise Refused(f"unknown engine {lock}. Choose one of: {names}.", "engine-unknown")
    needs = dict(_role("engine")["__engine_locks"][lock], extra_index_urls=[])
    for group in (content.root() / "inventory" / "group_vars").glob("*.yml"):
        profile = _yaml(group)
        if profile.get("vllm_engine_lock") == lock:
            needs["extra_index_urls"] += profile.get("engine_extra_index_urls", [])
    return needs


def serves_gguf(lock: str) -> bool:
    """Whether the engine of `lock` is llama.cpp, which serves only GGUF models."""
    return lock.startswith("llama-cpp-")


def engine(lock: str) -> Engine:
    """The description of the engine of `lock` for a bundle."""
    uv = _role("engine")["__engine_uv_version"]
    return Engine(lock=lock, lock_sha256=hashlib.sha256(_lock_file(lock).read_bytes()).hexdigest(), uv=uv)


def download(locked_engine: Engine, system: System, indexes: Sequence[str], folder: Path, on_step: OnStep) -> None:
    """Download uv and the wheels of `locked_engine` for `system`, except those downloaded before.

    Args:
        locked_engine: The engine.
        system: What the hosts run.
        indexes: Package indexes beside pip's own, unless pip's settings name directories with wheels.
        folder: The target directory: the wheels go into `WHEELS`, the sources of llama.cpp into `SOURCES`.
        on_step: Called for each wheel.

    Raises:
        ZoracDeployError: pip could not download one of them.
    """
    lines = requirements(_lock_file(locked_engine.lock).read_text(), system)
    extra = [] if os.environ.get("PIP_FIND_LINKS") else [f"--extra-index-url={index}" for index in indexes]
    _pip(system, folder / WHEELS, on_step, f"uv=={locked_engine.uv}")
    listed = folder / "requirements.txt"
    # pip discards an unfinished run, so it downloads a few wheels at a time.
    for first in range(0, len(lines), _AT_ONCE):
        listed.write_text("\n".join(lines[first : first + _AT_ONCE]))
        _pip(system, folder / WHEELS, on_step, "--require-hashes", *extra, "--requirement", str(listed))
    if serves_gguf(locked_engine.lock):
        listed.write_text(_role("llama_cpp")["__llama_cpp_source"])
        source = ["--no-binary=llama-cpp-python", "--require-hashes", "--requirement", str(listed)]
        _pip(system, folder / SOURCES, on_step, *source)


def requirements(lock: str, system: System) -> list[str]:
    """The lines of `lock` that apply to `system`, with their hashes and without their markers.

    pip would evaluate the markers for the Python that it runs on.
    """
    environment = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{system.python}.0",
        "python_version": system.python,
        "sys_platform": "linux",
    }
    lines = []
    for entry in re.split(r"(?<!\\)\n", lock):
        text, *hashes = entry.replace("\\\n", " ").split(" --hash=")
        if not text.strip() or text.startswith("#"):
            continue
        requirement = Requirement(text.strip())
        if requirement.marker is None or requirement.marker.evaluate(environment):
            lines.append(" --hash=".join([f"{requirement.name}{requirement.specifier}", *map(str.strip, hashes)]))
    return lines


def _pip(system: System, folder: Path, on_step: OnStep, *arguments: str) -> None:
    platforms = [f"manylinux_2_{minor}_x86_64" for minor in range(system.glibc, 4, -1)]
    platforms += [f"manylinux{old}_x86_64" for old in ("2014", "2010", "1")] + ["linux_x86_64"]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--progress-bar=off"]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={system.python}", f"--dest={folder}"]
    command += [f"--platform={platform}" for platform in platforms]
    output = []
    with subprocess.Popen(
        [*command, *arguments],
        env={**os.environ, "TMPDIR": str(folder.parent)},  # the free space was checked here
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as pip:
        for line in pip.stdout or ():
            output.append(line.rstrip())
            if line.startswith("Collecting "):
                on_step("download the wheels", line.split()[1])
    if pip.returncode != 0:
        faults = dict.fromkeys([*(line for line in output if line.startswith("ERROR")), *output[-1:]])
        raise ZoracDeployError(
            "cannot download the wheels; pip reported:\n"
            + "\n".join(faults)
            + "\nRe-run the command to resume: complete downloads are kept."
        )


def _lock_file(lock: str) -> Path:
    return content.role_file("engine", f"locks/{lock}.txt")


def _role(name: str) -> dict[str, Any]:
    return _yaml(content.root() / "roles" / name / "vars" / "main.yml")


def _yaml(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded
