"""Run ansible-playbook in place of ansible-runner.

ansible-runner writes the command and the environment of what it starts to the disk. Therefore it starts this program,
which reads both, with the password for sudo, from the runner's socket. It needs only Python's standard library.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

# In the directory given on the command line.
SOCKET = "order"
PID = "pid"
# How long ansible-playbook has to finish when it is told to end.
_END_SECONDS = 10


def main(folder: Path) -> int:
    """Run ansible-playbook; return its exit code, or 128 plus the number of the signal that ended it."""
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, _leave)
    (folder / PID).write_text(str(os.getpid()))
    with socket.socket(socket.AF_UNIX) as runner:
        runner.connect(str(folder / SOCKET))
        with runner.makefile("rb") as stream:
            order = json.load(stream)
    # a session of its own, without a terminal to prompt on
    process = subprocess.Popen(
        order["command"], env=order["environment"], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        process.communicate(order["password"].encode())
    finally:
        _end(process)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _leave(number: int, _: object) -> None:
    """The runner ends this program (SIGTERM), or was killed, which closes its end of the terminal (SIGHUP)."""
    for other in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End ansible-playbook and its child processes, if it still runs."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
