"""The checks of `smoke` against a stub server: a real engine has none of these faults."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from zorac_deploy import chat
from zorac_deploy.errors import EndpointFailed
from zorac_host import routes


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
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
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


def test_an_unreachable_server_fails_every_check():
    outcome = chat.smoke(chat.Endpoint("http://127.0.0.1:9", "small", "key"))
    assert len(outcome.failed) == 5


def test_speed_comes_from_the_servers_count_not_from_chunks():
    class Usage:
        completion_tokens, prompt_tokens = 41, 5

    measures = chat._measures(sent=10.0, first=10.5, last=14.5, usage=Usage())
    assert measures == chat.Measures(0.5, 10.0, 41, 5)


def test_a_refused_reply_has_the_reason(endpoint_of):
    with pytest.raises(EndpointFailed, match=r"400.*roles must alternate"):
        "".join(chat.Reply(endpoint_of(status=400), [{"role": "user", "content": "hi"}], 9))


def hostile(endpoint_of, path, body, kind="application/json", endless=False):
    """An endpoint that answers one path with `body`, repeatedly if it is endless."""

    def answer(self):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body)
            for _ in range(10_000 if endless else 0):
                self.wfile.write(body)

    def do_get(self):
        asked = self.path == path and (path == "/health" or self.headers["Authorization"])
        answer(self) if asked else Stub.do_GET(self)

    def do_post(self):
        if self.path == path and self.headers["Authorization"]:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self)
        else:
            Stub.do_POST(self)

    return endpoint_of(do_GET=do_get, do_POST=do_post)


def event(**chunk):
    return f"data: {json.dumps(chunk)}\n\n".encode()


TEXT = {"choices": [{"index": 0, "delta": {"content": "hi"}}]}
STREAM = "/v1/chat/completions"
NESTED = b"[" * 100_000
HOSTILE_STREAMS = {
    "html": b"<html>Bad gateway</html>",
    "broken JSON": b'data: {"choices": [{\n\n',
    "nested JSON": b"data: " + NESTED + b"\n\n",
    "a number": b"data: 7\n\n",
    "a list": b"data: []\n\n",
    "null": b"data: null\n\n",
    "text of another kind": event(choices=[{"index": 0, "delta": {"content": 7}}]),
    "choices of another kind": event(choices="hi"),
    "a choice of another kind": event(choices=["hi"]),
    "no delta": event(choices=[{"index": 0, "delta": None}]),
    "null usage": event(**TEXT) + event(choices=[], usage=None),
    "usage without numbers": event(**TEXT) + event(choices=[], usage={"completion_tokens": None}),
    "usage of another kind": event(**TEXT) + event(choices=[], usage=[1]),
    "an error": event(error={"message": "out of memory"}),
    "no text": b"",
    "no UTF-8": b"data: \xff\xfe\n\n",
}


@pytest.fixture
def few_routes(monkeypatch):
    monkeypatch.setattr(routes, "_KNOWN", ("/v1/models",))
    monkeypatch.setattr(routes, "_KNOWN_WITH_BODY", ())


@pytest.mark.usefixtures("few_routes")
@pytest.mark.parametrize("body", HOSTILE_STREAMS.values(), ids=HOSTILE_STREAMS)
def test_a_hostile_stream_fails_its_check(endpoint_of, body):
    outcome = chat.smoke(hostile(endpoint_of, STREAM, body, "text/event-stream"))
    assert outcome.failed == ["zorac-summary", "completion"]


@pytest.mark.parametrize("body", HOSTILE_STREAMS.values(), ids=HOSTILE_STREAMS)
def test_a_hostile_stream_gives_text_or_our_own_error(endpoint_of, body):
    reply = chat.Reply(hostile(endpoint_of, STREAM, body, "text/event-stream"), [{"role": "user", "content": "hi"}], 9)
    with contextlib.suppress(EndpointFailed):
        assert "".join(reply) in ("", "hi")
    assert reply.measures is None


@pytest.mark.usefixtures("few_routes")
@pytest.mark.parametrize(
    "body",
    [b"<html>", b'{"data": null}', b"[]", b"null", b'{"data": ["small"]}', b'{"data": {"id": "small"}}', NESTED, b"7"],
)
def test_a_hostile_list_of_models_fails_its_check(endpoint_of, body):
    assert chat.smoke(hostile(endpoint_of, "/v1/models", body)).failed == ["models"]


@pytest.mark.usefixtures("few_routes")
@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        NESTED,
        b'{"paths": ["/new"]}',
        b'{"paths": {"/new": null}}',
        b'{"paths": {"/new": {"post": null}}}',
        b'{"paths": {"@example.org/new": {"get": {}}}}',
        b'{"paths": {"/a\\nb": {"get": {}}}}',
        json.dumps({"paths": {f"/{number}": {"get": {}} for number in range(5000)}}).encode(),
    ],
)
def test_a_hostile_list_of_routes_fails_its_check(endpoint_of, body):
    assert chat.smoke(hostile(endpoint_of, "/openapi.json", body)).failed == ["unauthorized"]


@pytest.mark.usefixtures("few_routes")
@pytest.mark.parametrize(
    ("path", "body", "failed"),
    [
        ("/health", b"x" * 2**20, ["health"]),
        ("/v1/models", b" " * 2**20, ["models"]),
        ("/openapi.json", b" " * 2**20, ["unauthorized"]),
        (STREAM, b"data: " + b"x" * 2**20, ["zorac-summary", "completion"]),  # a line without an end
        (STREAM, b": still here\n\n" * 2**12, ["zorac-summary", "completion"]),  # comments
        (STREAM, event(**TEXT) * 2**10, ["zorac-summary", "completion"]),  # more tokens than requested
    ],
)
def test_an_endless_answer_is_cut_off(endpoint_of, monkeypatch, path, body, failed):
    monkeypatch.setattr(chat, "_ANSWER_LIMIT_BYTES", 2**20)
    began = time.monotonic()
    assert chat.smoke(hostile(endpoint_of, path, body, endless=True)).failed == failed
    assert time.monotonic() - began < 60


def test_a_stream_without_text_times_out(endpoint_of, monkeypatch):
    def drip(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(100):
                self.wfile.write(b": still here\n\n")
                time.sleep(0.05)

    monkeypatch.setattr(chat, "_LIMIT_SECONDS", 0.3)
    with pytest.raises(EndpointFailed, match="no text"):
        "".join(chat.Reply(endpoint_of(do_POST=drip), [{"role": "user", "content": "hi"}], 9))


@pytest.mark.parametrize(("reason", "cut"), [("length", True), ("stop", False), (None, False)])
def test_a_reply_knows_whether_the_limit_cut_it_off(endpoint_of, reason, cut):
    end = {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    reply = chat.Reply(hostile(endpoint_of, STREAM, event(**TEXT) + event(**end)), [], 9)
    assert "".join(reply) == "hi"
    assert reply.cut is cut


def test_the_endpoints_repr_has_no_key():
    assert "sesame" not in repr(chat.Endpoint("http://h", "m", "sesame"))
