"""Check whether an engine can listen on an address of this host, and which process prevents it."""

import contextlib
import errno
import ipaddress
import re
import socket
import subprocess
from collections.abc import Collection, Iterator
from pathlib import Path

from zorac_host.refusal import Refusal

# lower ports need a capability that an engine does not have
_LOWEST = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_PROCESS = re.compile(r'\("([^"]*)",pid=(\d+)')


def require(host: str, port: int, units: Collection[str] = ()) -> None:
    """Require that an engine can listen, by binding a socket as it does.

    Args:
        host: The address.
        port: The port.
        units: The systemd units whose processes may hold the port, because they will be stopped.

    Raises:
        Refusal: It cannot listen, even after `units` are stopped.
    """
    try:
        address = _bind(host, 0) if host else ""
    except (OSError, TypeError) as error:
        raise _no_address(host, getattr(error, "strerror", None) or str(error)) from None
    if not address:
        raise _no_address(host, "it is empty")
    lowest = int(_LOWEST.read_text())
    if port < lowest:
        raise Refusal(
            f"vllm_port is {port}, but a service without root rights cannot listen below {lowest}. "
            f"Set vllm_port to a number from {lowest} to 65535.",
            "settings-invalid",
        )
    try:
        _bind(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            message = f"port {port} of {host} is not available: {error.strerror}. Set vllm_port to another port."
            raise Refusal(message, "port-taken") from None
    else:
        return
    listeners = list(_listeners(address, port))
    foreign = [_described(name, pid) for name, pid in listeners if unit_of(pid) not in units]
    if listeners and not foreign:
        return
    owners = " and ".join(dict.fromkeys(foreign)) or "an unknown process"
    raise Refusal(
        f"port {port} of {host} is in use by {owners}. Stop that program, or set vllm_port to a free port.",
        "port-taken",
    )


def _bind(host: str, port: int) -> str:
    """Bind a socket and close it. Return its address."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return str(probe.getsockname()[0])


def _no_address(host: str, reason: str) -> Refusal:
    addresses = " ".join(_run("hostname", "--all-ip-addresses").split()) or "none but the loopback address"
    return Refusal(
        f"vllm_host is '{host}', but this host cannot listen there: {reason}. Its addresses: "
        f"{addresses}. Set vllm_host to one of them, to 127.0.0.1, or to 0.0.0.0 for all.",
        "settings-invalid",
    )


def _listeners(address: str, port: int) -> Iterator[tuple[str, int]]:
    """The processes listening on a conflicting address, by name and id: 0 for a socket whose process is not shown."""
    options = ("--no-header", "--listening", "--tcp", "--numeric", "--processes")
    for line in _run("ss", *options, f"sport = :{port}").splitlines():
        columns = line.split(maxsplit=5)
        if len(columns) > 3 and _overlap(columns[3].rpartition(":")[0], address):
            for name, pid in _PROCESS.findall(line) or [("", "0")]:
                yield name, int(pid)


def _overlap(listener: str, address: str) -> bool:
    """Whether a socket on `listener`, as ss prints it, conflicts with one on `address`. ``*`` is all addresses."""
    if listener == "*":
        return True
    listening, wanted_address = _address(listener), _address(address)
    if listening == wanted_address or wanted_address == ipaddress.IPv6Address("::"):  # it accepts IPv4 too
        return True
    return listening.version == wanted_address.version and (listening.is_unspecified or wanted_address.is_unspecified)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text.partition("%")[0].strip("[]"))
    return (address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None) or address


def unit_of(pid: int) -> str:
    """The systemd unit of a process; empty if it has none."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            for part in reversed(line.split("/")):
                if part.endswith((".service", ".scope")):
                    return part
    return ""


def _described(name: str, pid: int) -> str:
    if not pid:
        return "an unknown process"
    unit = unit_of(pid)
    return f"{name} (process {pid}{f' of {unit}, which zorac-deploy did not create' if unit else ''})"


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout
    except OSError:
        return ""
