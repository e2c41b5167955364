"""Download a model to a directory of this machine, for what reads all of it here."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import platformdirs

from zorac_deploy import content, scratch
from zorac_deploy.errors import ZoracDeployError, refused
from zorac_deploy.models.resolve import Resolved, endpoint


def fetched(model: Resolved, on_step: Callable[[str], None] = lambda _: None) -> Path:
    """The local directory of `model`, or its GGUF file, downloaded as a host does it and cached.

    Args:
        model: The model.
        on_step: Called once a second with the progress of the download.

    Raises:
        Refused: It cannot be downloaded. Partial files stay, and the next call resumes.
    """
    if model.kind == "copy":
        return Path(model.folder)
    name = Path(model.folder).name
    single = name.endswith(".gguf")
    root = platformdirs.user_cache_path("zorac-deploy") / "fetched"
    path = root / f"{name.removesuffix('.gguf')}-{model.manifest['digest'][:12]}"
    root.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may be downloading it
        if not path.is_dir():
            _fetch(model, path, on_step)
    return path / name if single else path


def _fetch(model: Resolved, path: Path, on_step: Callable[[str], None]) -> None:
    with scratch.folder() as folder:
        progress, job, token = (folder / name for name in ("progress.json", "job.json", "hub-token"))
        job.write_text(json.dumps(_job(model, path, progress)), encoding="utf-8")
        if model.source.startswith("hf://"):
            token.write_text(huggingface_hub.get_token() or "", encoding="utf-8")
        program = content.role_file("model_weights", "fetcher") / "model_fetch.py"
        environment = {**os.environ, "CREDENTIALS_DIRECTORY": str(folder)}
        # A session of its own, so that Ctrl-C reaches only us; we end it with its child processes.
        with subprocess.Popen(
            [sys.executable, "-I", str(program), str(job)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                while process.poll() is None:
                    if progress.exists():
                        on_step(json.loads(progress.read_text(encoding="utf-8"))["note"])
                    time.sleep(1)
                answer, message = process.communicate()
            finally:
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
        if process.returncode != 0:
            raise refused(answer) or ZoracDeployError(f"cannot download {model.source}: {message.strip()[-2000:]}")


def _job(model: Resolved, path: Path, progress: Path) -> dict[str, object]:
    """The input of model_fetch.py. On this machine it uses the user's proxies, certificates and caches."""
    return {
        "path": str(path),
        "manifest": dict(model.manifest),
        "urls": dict(model.urls),
        "hub": model.source.startswith("hf://"),
        "python": sys.executable,
        "environment": {**os.environ, "HF_ENDPOINT": endpoint()},
        "progress": str(progress),
        "stall_seconds": 60,
        "tries": 8,
        "pause_seconds": 2,
    }
