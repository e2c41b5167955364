"""Download from a hub as a host does: the role's real programs with the real client, on this machine."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

from tests.hub_server import Hub
from zorac_deploy import content, errors

_PROGRAM = content.role_file("model_weights", "fetcher") / "model_fetch.py"


def job(folder: Path, hub: Hub, *, web: bool = False, **changes: object) -> Path:
    """Write the job to download what `hub` has now into ``folder/models/model``."""
    files = hub.revisions[hub.head]
    base = f"{hub.endpoint}/web/{hub.repo}" if web else f"{hub.endpoint}/{hub.repo}/resolve/{hub.head}"
    described = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    (folder / "models").mkdir(exist_ok=True)
    what = {
        "path": str(target(folder)),
        "manifest": {
            "source": base if web else f"hf://{hub.repo}@{hub.head}",
            "bytes": sum(map(len, files.values())),
            "files": described,
        },
        "urls": {name: f"{base}/{name}" for name in files},
        "hub": not web,
        "python": sys.executable,
        "environment": {"HF_ENDPOINT": hub.endpoint},
        "progress": str(folder / "progress.json"),
        "stall_seconds": 20,
        "tries": 2,
        "pause_seconds": 0.05,
        **changes,
    }
    path = folder / "job.json"
    path.write_text(json.dumps(what))
    return path


def command(job_file: Path) -> list[str]:
    """The command that runs the job."""
    return [sys.executable, str(_PROGRAM), str(job_file)]


def begin(job_file: Path, **kwargs: object) -> subprocess.Popen[str]:
    """Start the job."""
    return subprocess.Popen(command(job_file), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs)  # type: ignore[call-overload, no-any-return]


def fetch(job_file: Path, **kwargs: object) -> str:
    """Run the job; empty if it succeeded, else the refusal with its id, or the program's output."""
    process = begin(job_file, **kwargs)
    answer, said = process.communicate()
    refusal = errors.refused(answer)
    if refusal:
        return f"[{refusal.refusal}] {refusal}"
    return "" if process.returncode == 0 else said.strip().splitlines()[-1]


def target(folder: Path) -> Path:
    """The final directory."""
    return folder / "models" / "model"


def published(folder: Path) -> dict[str, bytes] | None:
    """The files under the model's name, except our record; None if it does not exist."""
    if not target(folder).exists():
        return None
    paths = (path for path in target(folder).rglob("*") if path.is_file() and path.name != ".zorac-deploy.json")
    return {str(path.relative_to(target(folder))): path.read_bytes() for path in paths}
