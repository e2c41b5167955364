"""`zorac-deploy tunnel`, and `client-config`'s advice about it."""

import contextlib
import json
import socket
import time
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from zorac_deploy import deployment
from zorac_deploy.cli import cli, client_config, tunnel
from zorac_deploy.connection import Connection
from zorac_deploy.errors import ZoracDeployError
from zorac_deploy.inventory import Target


@pytest.fixture
def host(monkeypatch):
    """A host that serves on loopback, and answers a number of checks."""

    def made(listen="127.0.0.1", local=False, looks=0):
        seen = []

        @contextlib.contextmanager
        def forward(*ports):
            seen.append(ports)
            yield ports[-1]

        def connected():
            seen.append("look")
            return seen.count("look") <= looks

        target = Target("tower", "headless", "192.0.2.7", local=local)
        connection = SimpleNamespace(target=target, forward=forward, connected=connected)
        served = SimpleNamespace(
            host="tower", listen=listen, url=f"http://{listen}:8000", port=8000, model="m[odel]", max_model_len=None
        )

        @contextlib.contextmanager
        def session(_):
            yield SimpleNamespace(name="tower", connection=connection)

        for module in (tunnel, client_config):
            monkeypatch.setattr(module, "session", session)
        monkeypatch.setattr(deployment, "read", lambda _: served)
        monkeypatch.setattr(deployment, "api_key", lambda _: "k")
        monkeypatch.setattr(tunnel, "_LOOK_SECONDS", 0)
        return seen

    return made


def run(*words):
    done = CliRunner().invoke(cli, words)
    return done.exit_code, done.output.replace("\n", " ")


def test_the_tunnel_uses_the_endpoints_port_until_the_connection_ends(host):
    seen = host(looks=3)
    code, said = run("tunnel", "tower")
    assert seen[0] == (8000, "127.0.0.1", 8000)
    assert "http://localhost:8000/v1 forwards to m[odel] on tower" in said
    assert seen.count("look") == 4
    assert (code, "connection to tower was lost" in said) == (10, True)


def test_ctrl_c_ends_the_tunnel(host, monkeypatch):
    host(looks=9)
    monkeypatch.setattr(time, "sleep", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    code, said = run("tunnel", "tower", "--port", "9000")
    assert "http://localhost:9000/v1" in said
    assert (code, "Tunnel closed" in said) == (0, True)


def test_this_machine_needs_no_tunnel(host):
    host(local=True)
    assert run("tunnel", "tower") == (0, "tower is this machine and needs no tunnel: http://127.0.0.1:8000/v1 ")


def test_a_port_in_use_is_reported():
    connection = Connection(Target("tower", "headless", "192.0.2.7"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        tried = connection.forward(8000, local_port=port)
        with pytest.raises(ZoracDeployError, match=f"port {port} on this machine .* --port N"):
            tried.__enter__()


@pytest.mark.parametrize(
    ("listen", "local", "named"), [("127.0.0.1", False, True), ("192.0.2.7", False, False), ("127.0.0.1", True, False)]
)
def test_client_config_names_the_tunnel_if_needed(host, listen, local, named):
    host(listen, local)
    done = CliRunner().invoke(cli, ["client-config", "tower"])
    assert json.loads(done.stdout)["VLLM_API_KEY"] == "k"
    assert ("zorac-deploy tunnel tower" in done.stderr.replace("\n", " ")) == named
