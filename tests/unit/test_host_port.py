"""zorac_host/port.py: the kernel decides whether an engine can listen, before anything is stopped."""

import os
import socket

import pytest

from tests.unit.refusals import refuses
from zorac_host import port

_ALL = "0.0.0.0"  # noqa: S104 - that is what is tested


@pytest.fixture
def listening():
    """Listen on an address and a free port, which is returned."""
    sockets = []

    def listen(address, dual=True):
        made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        sockets.append(made)
        if ":" in address:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
        made.bind((address, 0))
        made.listen()
        return made.getsockname()[1]

    yield listen
    for each in sockets:
        each.close()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", _ALL),
        (_ALL, "127.0.0.1"),
        (_ALL, _ALL),
        ("127.0.0.1", "localhost"),
        ("::1", "::1"),
        ("::1", "::"),
        ("::", "::1"),
        ("::", "127.0.0.1"),
        ("::", _ALL),
        (_ALL, "::"),
        ("127.0.0.1", "::"),
    ],
)
def test_a_port_in_use_is_refused_with_the_program(listening, theirs, ours):
    number = listening(theirs)
    with refuses("port-taken", rf"^port {number} of {ours} is in use by .*\(process {os.getpid()}"):
        port.require(ours, number)


@pytest.mark.parametrize(
    ("theirs", "ours"), [("127.0.0.2", "127.0.0.1"), ("127.0.0.1", "::1"), ("::1", _ALL), ("::", _ALL)]
)
def test_another_address_is_no_conflict(listening, theirs, ours):
    number = listening(theirs, dual=False)
    port.require(ours, number)


def test_our_own_units_port_counts_as_free(listening, monkeypatch):
    monkeypatch.setattr(port, "unit_of", lambda _: "vllm.service")
    port.require(_ALL, listening("127.0.0.1"), ["vllm.service"])
    shown = (
        'LISTEN 0 128 127.0.0.1:{0} 0.0.0.0:* users:(("python",pid=7,fd=3))\n'
        'LISTEN 0 128 192.0.2.1:{0} 0.0.0.0:* users:(("nginx",pid=8,fd=3))\n'
    )
    number = listening("127.0.0.1")
    monkeypatch.setattr(port, "_run", lambda *_: shown.format(number))
    monkeypatch.setattr(port, "unit_of", lambda pid: {7: "vllm.service", 8: "nginx.service"}[pid])
    port.require("127.0.0.1", number, ["vllm.service"])
    with refuses("port-taken", rf"^port {number} of 0.0.0.0 is in use by nginx \(process 8 of nginx.service, "):
        port.require(_ALL, number, ["vllm.service"])


@pytest.mark.parametrize("shown", ["LISTEN 0 128 127.0.0.1:{0} 0.0.0.0:*\n", ""])
def test_a_listener_without_a_process_is_refused(listening, monkeypatch, shown):
    number = listening("127.0.0.1")
    monkeypatch.setattr(port, "_run", lambda *_: shown.format(number))
    with refuses("port-taken", f"^port {number} of 127.0.0.1 is in use by an unknown process"):
        port.require("127.0.0.1", number, ["vllm.service"])


@pytest.mark.parametrize("host", ["192.0.2.7", "127.0.0.1o", "", "a b", "2001:db8::7", "é" * 80])
def test_an_unknown_address_is_refused_with_the_hosts_addresses(host):
    says = f"^vllm_host is '{host}', but this host cannot listen there: .*Its addresses: "
    with refuses("settings-invalid", says):
        port.require(host, 8000)


def test_a_root_only_port_is_refused():
    with refuses("settings-invalid", "^vllm_port is 80, but "):
        port.require("127.0.0.1", 80)
