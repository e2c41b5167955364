"""The checks of `smoke` against a stub server (a stand-in, for a real engine shows none of these faults)."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from zorac_deploy import chat
from zorac_deploy.errors import EndpointFailed


class Stub(BaseHTTPRequestHandler):
    guarded = True
    open = ()
    paths = {"/melt": {"post": {}}, "/new": {"post": {"requestBody": {}}}}  # noqa: RUF012 - only read
    pieces = ("Paris", " is", " nice.")
    usage = {"prompt_tokens": 9, "completion_tokens": 40, "total_tokens": 49}  # noqa: RUF012 - only read
    status = 200
    health = 200
    models = ("small",)

    def _answer(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        if self.path == "/health":
            self._answer(self.health, "")
        elif self.guarded and self.headers["Authorization"] != "Bearer key":
            self._answer(401, '{"error": "Unauthorized"}')
        else:
            self._answer(200, json.dumps({"data": [{"id": name} for name in self.models], "paths": self.paths}))

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path not in self.open and self.guarded and self.headers["Authorization"] != "Bearer key":
            self._answer(401, '{"error": "Unauthorized"}')
            return
        if self.status != 200:
            self._answer(self.status, '{"error": {"message": "roles must alternate"}}')
            return
        chunks = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in self.pieces]
        if self.usage:
            chunks.append({"choices": [], "usage": self.usage})
        lines = [f"data: {json.dumps({'id': 'x', 'object': 'chat.completion.chunk', **chunk})}\n\n" for chunk in chunks]
        self._answer(200, "".join(lines) + "data: [DONE]\n\n", "text/event-stream")

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint_of():
    servers = []

    def start(**differences):
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Changed", (Stub,), differences))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return chat.Endpoint(f"http://127.0.0.1:{server.server_port}", "small", "key")

    yield start
    for server in servers:
        server.shutdown()


def test_a_good_server_passes_and_is_measured_by_its_own_count(endpoint_of):
    outcome = chat.smoke(endpoint_of())
    assert outcome.passed, outcome.failed
    assert (outcome.measures.completion_tokens, outcome.measures.prompt_tokens) == (40, 9)


@pytest.mark.parametrize(
    ("differences", "failed"),
    [
        ({"health": 503}, ["health"]),
        ({"guarded": False}, ["unauthorized"]),
        ({"open": ("/invocations",)}, ["unauthorized"]),
        ({"open": ("/new",)}, ["unauthorized"]),  # only the engine knows it
        ({"models": ("other",)}, ["models"]),
        ({"pieces": ()}, ["zorac-summary", "completion"]),
        ({"usage": None}, ["zorac-summary", "completion"]),
        ({"status": 400}, ["zorac-summary", "completion"]),
        ({"status": 500}, ["zorac-summary", "completion"]),
    ],
)
def test_each_fault_fails_its_own_check(endpoint_of, differences, failed):
    assert chat.smoke(endpoint_of(**differences)).failed == failed


def test_a_server_that_is_not_there_fails_everything():
    outcome = chat.smoke(chat.Endpoint("http://127.0.0.1:9", "small", "key"))
    assert len(outcome.failed) == 5


def test_speed_comes_from_the_servers_count_not_from_chunks():
    class Usage:
        completion_tokens, prompt_tokens = 41, 5

    measures = chat._measures(sent=10.0, first=10.5, last=14.5, usage=Usage())
    assert measures == chat.Measures(0.5, 10.0, 41, 5)


def test_a_reply_that_is_refused_says_why(endpoint_of):
    with pytest.raises(EndpointFailed, match=r"400.*roles must alternate"):
        "".join(chat.Reply(endpoint_of(status=400), [{"role": "user", "content": "hi"}]))


def test_the_key_is_not_in_the_endpoints_own_words():
    assert "sesame" not in repr(chat.Endpoint("http://h", "m", "sesame"))
