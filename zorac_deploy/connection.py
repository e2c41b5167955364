"""One way to run a command on a host: over SSH, or directly where the host is this machine.

All connections to a host share one SSH session (ControlMaster), Ansible's among them.
"""

import contextlib
import getpass
import os
import re
import shlex
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from zorac_deploy import scratch
from zorac_deploy.errors import (
    HostBusy,
    HostKeyChanged,
    HostUnreachable,
    KeyRefused,
    Refused,
    SudoRefused,
    ZoracDeployError,
)
from zorac_deploy.inventory import Target

_CONNECT_LIMIT_SECONDS = 10
_HEARTBEAT_SECONDS = 10
_LOCK_LINE = 500
# The limit for a command's output. The largest answers, a verification with its document, are below 1 MiB.
_PRINTED_LIMIT_BYTES = 16 * 2**20

# Owned by root, in a directory where no other user can create files or links.
_LOCK_FOLDER = "/run/zorac-deploy"

# A process on the host holds the lock for as long as lines arrive. It ends with the controller's process, with the
# connection, or after a minute without a line. Exit code 75: the lock is held; 76: the lock is unsafe.
_LOCK_HOLDER = """
umask 077
export LC_ALL=C
lock=$2/lock
mkdir "$2" 2> /dev/null
[ "$(stat --format=%F:%u "$2")" = "directory:$EUID" ] || { stat --format='%N is a %F of %U' "$2"; exit 76; }
chmod 0700 "$2" || exit
if [ -e "$lock" ] || [ -L "$lock" ]; then
  case "$(stat --format=%F:%u "$lock")" in
    "regular file:$EUID" | "regular empty file:$EUID") ;;
    *) stat --format='%N is a %F of %U' "$lock"; exit 76 ;;
  esac
fi
exec 9>> "$lock"
if ! flock --nonblock 9; then cat "$lock"; exit 75; fi
printf '%s\\n' "$1" > "$lock"
echo held
while read -r -t 60 _; do :; done
: > "$lock"
"""

# How ssh (exit code 255) and sudo (exit code 1) report their errors. Other lines are warnings.
_SSH_FAULTS: dict[type[ZoracDeployError], re.Pattern[str]] = {
    HostKeyChanged: re.compile("REMOTE HOST IDENTIFICATION HAS CHANGED|^Host key verification failed"),
    KeyRefused: re.compile(r"Permission denied \(|Too many authentication failures"),
}
_SUDO_FAULTS: dict[type[ZoracDeployError], re.Pattern[str]] = {
    SudoRefused: re.compile(
        r"^sudo: (a password|a terminal) is required|^sudo: no password was provided|^sudo: \d+ incorrect password"
        "|^sudo: no tty present|^sudo: sorry, you |^sudo: account validation|^sudo: .*password (is )?expired"
        "|^sudo: Account expired|^sudo: PAM |^sudo: effective uid is not |must be owned by uid|no new privileges"
        "|^sudo: Password expired|^sudo: no valid sudoers|is not in the sudoers file"
        "|is not allowed to run sudo|may not run sudo"
        "|^Sorry, user .* is not allowed to execute|sudo.?: (command not found|not found|No such file or directory)$"
    ),
}


def bracketed(address: str) -> str:
    """The address before a colon and a port: an IPv6 address gets brackets."""
    return f"[{address}]" if ":" in address else address


@dataclass(frozen=True)
class Connection:
    """The connection to one host.

    Attributes:
        target: The host.
        sudo_password: The password for sudo on the host, if it asks for one.
        control: The directory for the socket of the shared SSH session.
    """

    target: Target
    sudo_password: str | None = field(default=None, repr=False)
    control: Path = Path()

    @property
    def control_path(self) -> Path:
        """The socket of the shared SSH session. The name is short: a socket's path has room for 104 bytes."""
        return self.control / "ssh"

    @property
    def ssh_options(self) -> list[str]:
        """The ssh options of every connection to the host, ours and Ansible's."""
        options = [
            "BatchMode=yes",
            "ControlMaster=auto",
            f"ControlPath={self.control_path}",
            "ControlPersist=60",
            f"ConnectTimeout={_CONNECT_LIMIT_SECONDS}",
            "ServerAliveInterval=15",
            # A new host key is accepted and stored; a changed one is refused.
            "StrictHostKeyChecking=accept-new",
        ]
        return [word for option in options for word in ("-o", option)]

    def command(self, *arguments: str, root: bool = True) -> list[str]:
        """The local command line that runs `arguments` on the host, by default as root."""
        if root and not (self.target.local and os.geteuid() == 0):
            asking = ["--stdin", "--prompt="] if self.sudo_password is not None else ["--non-interactive"]
            arguments = ("env", "LC_ALL=C.UTF-8", "sudo", *asking, "--", *arguments)  # we parse its messages
        if self.target.local:
            return list(arguments)
        return [*self._ssh(), shlex.join(arguments)]

    def run(self, *arguments: str, root: bool = True, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        """Run `arguments` on the host; return the result for any exit code. A command that prints too much is ended.

        Args:
            arguments: The command.
            root: Run it as root.
            stdin: Its standard input.
        """
        password = f"{self.sudo_password}\n" if root and self.sudo_password is not None else ""
        command = self.command(*arguments, root=root)
        try:
            return _captured(command, password.encode() + stdin)
        except FileNotFoundError:  # on this machine, without a shell in between that would report it
            return subprocess.CompletedProcess(command, 127, "", f"{command[0]}: command not found")

    def read(self, *arguments: str) -> str:
        """The output of `arguments`, run as root on the host.

        Raises:
            ZoracDeployError: The command failed.
        """
        done = self.run(*arguments)
        if done.returncode != 0:
            raise self._fault(done.returncode, done.stderr)
        return done.stdout

    def follow(self, *arguments: str, on_line: Callable[[str], object]) -> int:
        """Run `arguments` as root on the host, pass each line of output to `on_line`, and return the exit code."""
        with subprocess.Popen(
            self.command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as process:
            assert process.stdin is not None  # noqa: S101 - pipes were asked for
            assert process.stdout is not None  # noqa: S101
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(f"{self.sudo_password}\n".encode() if self.sudo_password is not None else b"")
            for line in process.stdout:
                on_line(line.decode(errors="replace").removesuffix("\n"))
        return process.returncode

    def check(self) -> None:
        """Require that the host answers, that login works, and that the user can become root.

        Raises:
            HostUnreachable: A requirement is not met; also its subclasses.
        """
        self.read("true")

    def close(self) -> None:
        """End the shared SSH session."""
        if not self.target.local:
            subprocess.run([*self._ssh("-O", "exit")], capture_output=True, check=False)

    @contextlib.contextmanager
    def lock(self, purpose: str) -> Iterator[None]:
        """Hold the host's lock, so that no other run changes the host.

        Raises:
            HostBusy: Another run holds it; the message says whose, since when and for what.
            Refused: The lock's directory on the host is not owned by root.
        """
        holder = f"{getpass.getuser()}@{socket.gethostname()} (process {os.getpid()}) for '{purpose}' since " + (
            time.strftime("%Y-%m-%d %H:%M:%S %Z")
        )
        process = subprocess.Popen(
            self.command("bash", "-c", _LOCK_HOLDER, "zorac-deploy-lock", holder, _LOCK_FOLDER),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # Ctrl-C is for this process, which releases the lock
        )
        assert process.stdin is not None  # noqa: S101 - pipes were asked for
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        if self.sudo_password is not None:
            process.stdin.write(f"{self.sudo_password}\n")
            process.stdin.flush()
        answer = "".join(sign for sign in process.stdout.readline(_LOCK_LINE) if sign.isprintable())
        if answer != "held":
            code = process.wait()
            if code == 75:
                raise HostBusy(
                    f"another zorac-deploy run holds the lock of {self.target.name}: {answer or 'owner unknown'}. "
                    "Wait until it ends or end it, then re-run the command."
                )
            if code == 76:
                raise Refused(
                    f"the lock on {self.target.name} is not safe: {answer}. A directory and a regular file, owned by "
                    f"root, are needed. Remove it on the host, then re-run the command: sudo rm -r {_LOCK_FOLDER}",
                    "lock-unsafe",
                )
            raise self._fault(code, process.stderr.read())
        done = threading.Event()
        beat = threading.Thread(target=_beat, args=(process, done), daemon=True)
        beat.start()
        try:
            yield
        finally:
            done.set()
            beat.join()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            process.wait()

    @contextlib.contextmanager
    def forward(self, port: int, address: str = "127.0.0.1", local_port: int = 0) -> Iterator[int]:
        """Forward `port` of the host to this machine within the context, and yield the local port.

        Args:
            port: The port on the host.
            address: The address on which the host listens.
            local_port: The local port; 0 for any free port.

        Raises:
            HostUnreachable: The tunnel failed.
            ZoracDeployError: The port on this machine is in use.
        """
        if self.target.local:
            yield port
            return
        try:
            with socket.create_server(("127.0.0.1", local_port)) as probe:
                local_port = probe.getsockname()[1]
        except OSError as fault:
            message = (
                f"port {local_port} on this machine is not available: {fault.strerror}. Choose another with --port N."
            )
            raise ZoracDeployError(message) from None
        tunnel = f"127.0.0.1:{local_port}:{bracketed(address)}:{port}"
        self.check()  # opens the shared session, which carries the tunnel
        made = subprocess.run(self._ssh("-O", "forward", "-L", tunnel), capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise HostUnreachable(f"cannot open a tunnel to port {port} of {self.target.name}: {made.stderr.strip()}")
        try:
            yield local_port
        finally:
            subprocess.run(self._ssh("-O", "cancel", "-L", tunnel), capture_output=True, check=False)

    def connected(self) -> bool:
        """Whether the shared SSH session is open. The host is not contacted."""
        return subprocess.run(self._ssh("-O", "check"), capture_output=True, check=False).returncode == 0

    def _ssh(self, *options: str) -> list[str]:
        target = self.target
        command = ["ssh", *self.ssh_options, *target.ssh_options]
        if target.port:
            command += ["-p", str(target.port)]
        if target.user:
            command += ["-l", target.user]
        if target.key:
            command += ["-i", target.key]
        return [*command, *options, target.address]

    def _fault(self, code: int, stderr: str) -> ZoracDeployError:
        """The error for an exit code of ssh or sudo and the last line that explains it; both also print warnings."""
        name, address = self.target.name, self.target.address
        message = stderr.strip()
        known = _SSH_FAULTS if code == 255 else _SUDO_FAULTS if code in (1, 127) else {}
        why = [(kind, line) for line in message.splitlines() for kind, pattern in known.items() if pattern.search(line)]
        kind, line = why[-1] if why else (None, message.splitlines()[-1] if message else "no reason given")
        if kind is SudoRefused:
            return SudoRefused(
                f"{self.target.user or 'the user'} on {name} cannot become root: {line}. "
                "If sudo needs a password, add --ask-become-pass. If not, allow the user to use sudo."
            )
        if kind is HostKeyChanged:
            host = f"'[{address}]:{self.target.port}'" if self.target.port not in (None, 22) else address
            return HostKeyChanged(
                f"the host key of {name} ({address}) changed: this may be a man-in-the-middle attack. If the machine "
                f"was reinstalled, type: ssh-keygen -R {host}. If not, find the cause before you connect."
            )
        if kind is KeyRefused:
            return KeyRefused(
                f"{name} ({address}) refuses the SSH key: {line}. "
                f"Install your key with: ssh-copy-id {self.target.user or getpass.getuser()}@{address}"
            )
        if code == 255:
            return HostUnreachable(
                f"{name} ({address}) does not answer: {line}. Check its address, that it is on, and that sshd runs."
            )
        return ZoracDeployError(f"a command on {name} failed with exit code {code}: {message[-500:]}")


def _captured(command: list[str], stdin: bytes) -> subprocess.CompletedProcess[str]:
    """Run `command` with `stdin` as standard input; its output is limited."""
    printed: dict[str, bytes] = {}

    def read(name: str, pipe: IO[bytes]) -> None:
        with pipe:  # closed at the limit, so that a command that prints endlessly ends
            printed[name] = pipe.read(_PRINTED_LIMIT_BYTES + 1)
        if len(printed[name]) > _PRINTED_LIMIT_BYTES:
            end()

    def end() -> None:
        with contextlib.suppress(PermissionError):  # sudo, on this machine: it ends by itself
            process.kill()

    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None  # noqa: S101 - pipes were asked for
        assert process.stdout is not None  # noqa: S101
        assert process.stderr is not None  # noqa: S101
        thread = threading.Thread(target=read, args=("stderr", process.stderr), daemon=True)
        thread.start()
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(stdin)
            read("stdout", process.stdout)
            thread.join()
            code = process.wait()
        except BaseException:
            end()
            raise
    texts = {name: text.decode(errors="replace").replace("\r\n", "\n") for name, text in printed.items()}
    if any(len(text) > _PRINTED_LIMIT_BYTES for text in printed.values()):
        texts = {"stdout": "", "stderr": f"the command printed more than {_PRINTED_LIMIT_BYTES >> 20} MiB"}
        code = -signal.SIGKILL
    return subprocess.CompletedProcess(command, code, **texts)


def _beat(process: subprocess.Popen[str], done: threading.Event) -> None:
    """Send a line to the lock's holder at intervals, until `done`."""
    assert process.stdin  # noqa: S101 - a pipe was asked for
    while not done.wait(_HEARTBEAT_SECONDS):
        try:
            process.stdin.write("\n")
            process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return


@contextlib.contextmanager
def opened(target: Target, sudo_password: str | None = None) -> Iterator[Connection]:
    """A connection to `target`. Its shared session is closed at the end of the context."""
    with scratch.folder() as control:
        connection = Connection(target, sudo_password, control)
        try:
            yield connection
        finally:
            connection.close()
