"""roles/engine_service/files/engine-ready: it waits for a healthy answer at any address, or for the engine's end."""

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from zorac_deploy import content


class Health(BaseHTTPRequestHandler):
    statuses: list  # of the answers to come; the last one repeats

    def do_GET(self):
        assert self.path == "/health"
        self.send_response(self.statuses[0])
        self.statuses[:] = self.statuses[1:] or self.statuses
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(address, *statuses):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        handler = type("Engine", (Health,), {"statuses": list(statuses)})
        server = type("Server", (ThreadingHTTPServer,), {"address_family": family})((address, 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server.server_address[1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def waited(address, port, pid):
    program = content.role_file("engine_service", "engine-ready")
    environment = {**os.environ, "MAINPID": str(pid), "http_proxy": "http://192.0.2.1:9"}
    command = [sys.executable, program, address, str(port)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize(
    ("bound", "listen"),
    [("127.0.0.1", "127.0.0.1"), ("127.0.0.1", "0.0.0.0"), ("::1", "::1"), ("::", "::"), ("127.0.0.1", "localhost")],  # noqa: S104
)
def test_an_engine_is_ready_when_it_is_healthy(serve, bound, listen):
    assert waited(listen, serve(bound, 503, 200), os.getpid()).returncode == 0


def test_an_engine_that_ended_is_not_waited_for(serve):
    ended = subprocess.Popen(["true"])
    ended.wait()
    done = waited("127.0.0.1", serve("127.0.0.1", 503), ended.pid)
    assert (done.returncode, done.stderr) == (1, "the engine ended before it answered\n")
