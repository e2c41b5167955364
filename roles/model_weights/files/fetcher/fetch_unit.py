"""Run a model's download in its own systemd unit, which outlives the caller, and report the progress.

Usage: ``fetch_unit.py start JOB`` or ``fetch_unit.py status JOB``; each prints one line of JSON. JOB is a file as
model_fetch.py describes it, with further keys:
    group: The group that can read the model.
    token_file: A file with the hub token, if any. It becomes a credential of the unit, and is removed.
    unit: The unit's name.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_FETCH = Path(__file__).with_name("model_fetch.py")
# The unit writes as root, because no other user may change a model; the sandboxing removes root's other rights.
_SANDBOX = (
    "UMask=0027",
    "CapabilityBoundingSet=",
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "RestrictNamespaces=yes",
    "RestrictSUIDSGID=yes",
    "RestrictRealtime=yes",
    "LockPersonality=yes",
    "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "InaccessiblePaths=-/etc/zorac-deploy -/etc/shadow -/etc/ssh",
)


def start(job_file: Path) -> bool:
    """Start the unit, unless it runs already; return whether it was started."""
    job = json.loads(job_file.read_text())
    token = Path(job["token_file"])
    try:
        if _is_active(job["unit"]):
            return False
        Path(job["progress"]).unlink(missing_ok=True)
        root = Path(job["path"]).parent
        properties = [
            *_SANDBOX,
            f"Group={job['group']}",
            f"ReadWritePaths={root} {job_file.parent}",
            *([f"LoadCredential=hub-token:{token}"] if token.is_file() else []),
        ]
        command = ["systemd-run", "--quiet", "--collect", "--service-type=exec", f"--unit={job['unit']}"]
        command += [f"--property={each}" for each in properties]
        subprocess.run([*command, sys.executable, "-I", str(_FETCH), str(job_file)], check=True)
        return True
    finally:
        token.unlink(missing_ok=True)


def status(job_file: Path) -> dict[str, Any]:
    """The progress of the job, and whether its unit runs; the state is ``none`` before the unit reports."""
    job = json.loads(job_file.read_text())
    active = _is_active(job["unit"])  # first: if the unit has ended, its last report is on disk
    try:
        told = json.loads(Path(job["progress"]).read_text())
    except FileNotFoundError:
        told = {"state": "none", "note": ""}
    return {**told, "running": active}


def _is_active(unit: str) -> bool:
    return subprocess.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0


def main() -> None:
    """Run the command of the first argument with the job of the second."""
    word, job_file = sys.argv[1], Path(sys.argv[2])
    print(json.dumps({"changed": start(job_file)} if word == "start" else status(job_file)))


if __name__ == "__main__":
    main()
