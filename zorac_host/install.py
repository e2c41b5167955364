"""Install this program and its units on the host. It may run from memory, before it is installed."""

import hashlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zorac_host
from zorac_host import activation, service, store

LIBEXEC = Path("/usr/local/lib/zorac-deploy")
PROGRAM = LIBEXEC / "zorac-host"
TIMER = "zorac-deploy-watchdog.timer"

_ACTIVATE = f"""\
# Written by zorac-deploy.
[Unit]
Description=Activate a generation of the inference server, or roll back
# Enabled while an activation is recorded: it continues after a reboot or a power cut.
ConditionPathExists={store.STATE}/activation.json
After=local-fs.target network.target
StartLimitIntervalSec=600
StartLimitBurst=20

[Service]
Type=oneshot
ExecStart={PROGRAM} run
TimeoutStartSec=infinity
# Restarted if it is killed. Exit code 3: it ended, and no engine is verified.
Restart=on-failure
RestartSec=1
RestartPreventExitStatus=3

[Install]
WantedBy=multi-user.target
"""
_WATCH = """\
# Written by zorac-deploy.
[Unit]
Description=Check the inference server

[Service]
Type=oneshot
ExecStart={program} watch --idle-seconds {idle} --stall-seconds {stall} --answer-seconds {answer}
TimeoutStartSec=300
"""
_TIMER = """\
# Written by zorac-deploy.
[Unit]
Description=Check the inference server every minute

[Timer]
# By the monotonic clock.
OnActiveSec=60
OnUnitInactiveSec=60
AccuracySec=5

[Install]
WantedBy=timers.target
"""


def install(seconds: Mapping[str, float], check: bool) -> dict[str, Any]:
    """Install the program, its directories and its units, each renamed into place.

    Args:
        seconds: The watchdog's limits: ``idle``, ``stall`` and ``answer``.
        check: Only say what would change.

    Returns:
        ``changed``, and a ``diff`` of the files.
    """
    files = {
        PROGRAM: (_own_bytes(), 0o755),
        store.UNITS / activation.UNIT: (_ACTIVATE.encode(), 0o644),
        store.UNITS / "zorac-deploy-watchdog.service": (_WATCH.format(program=PROGRAM, **seconds).encode(), 0o644),
        store.UNITS / TIMER: (_TIMER.encode(), 0o644),
    }
    differ = {path: expected for path, expected in files.items() if _described(path) != _as_text(*expected)}
    former = LIBEXEC / "zorac_host"  # earlier versions were a directory of modules
    if not check:
        for folder in (LIBEXEC, store.STATE):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
        if PROGRAM in differ and PROGRAM.exists():
            activation.wait()  # an activation uses the program that began it
        diff = [_diff(path, expected) for path, expected in differ.items()]
        for path, (content, mode) in differ.items():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            store.write(path, content, mode)
        if former.exists():
            shutil.rmtree(former)
        if any(path.parent == store.UNITS for path in differ):
            service.systemctl("daemon-reload")
    else:
        diff = [_diff(path, expected) for path, expected in differ.items()]
    return {"changed": bool(differ) or (check and former.exists()), "diff": diff}


def _own_bytes() -> bytes:
    """The archive that this program was loaded from."""
    return Path(zorac_host.__loader__.archive).read_bytes()  # type: ignore[union-attr]


def _described(path: Path) -> str:
    """The content of the file; empty if it does not exist."""
    if path.is_symlink() or not path.is_file():
        return "not a regular file\n" if path.is_symlink() or path.exists() else ""
    status = path.stat()
    return _as_text(path.read_bytes(), status.st_mode & 0o7777, status.st_uid)


def _as_text(content: bytes, mode: int, owner: int | None = None) -> str:
    owner = os.geteuid() if owner is None else owner
    return f"sha256 {hashlib.sha256(content).hexdigest()}\nmode {mode:04o}\nowner {owner}\n"


def _diff(path: Path, expected: tuple[bytes, int]) -> dict[str, str]:
    return {
        "before": _described(path),
        "after": _as_text(*expected),
        "before_header": str(path),
        "after_header": str(path),
    }


def watched(check: bool) -> bool:
    """Enable and start the watchdog's timer; return whether that was, or would be, a change."""
    enabled = service.systemctl("is-enabled", "--quiet", TIMER), service.systemctl("is-active", "--quiet", TIMER)
    if all(enabled):
        return False
    if not check:
        service.systemctl("enable", "--now", TIMER)
    return True
