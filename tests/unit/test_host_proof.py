"""zorac_host/proof.py: an engine that fails a client's requests is told from a healthy one."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from zorac_host import proof, store
from zorac_host.service import Failure

METRICS = """# HELP vllm:num_requests_running Requests.
vllm:num_requests_running{engine="0",model_name="m"} 0.0
vllm:num_requests_waiting{engine="0",model_name="m"} 0.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 100.0
vllm:generation_tokens_total{engine="0",model_name="m"} 7.0
vllm:generation_tokens_total{engine="1",model_name="m"} 3.0
process_open_fds 12.0
"""


def streamed(*texts, usage=True):
    """A streamed reply of these texts."""
    chunks = [{"choices": [{"delta": {"role": "assistant", "content": text}}]} for text in texts]
    if usage:
        chunks.append({"choices": [], "usage": {"completion_tokens": len(texts)}})
    return [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks] + ["data: [DONE]\n\n"]


class FakeEngine(BaseHTTPRequestHandler):
    """Answers as vLLM does, except for `faults`: by path, a status and the parts of the answer."""

    protocol_version = "HTTP/1.1"
    faults, asked, keys, ended = {}, [], {}, threading.Event()
    listed, open = {}, {}

    def do_GET(self):
        key = self.keys[self.path] = self.headers["Authorization"]
        right = {
            "/health": (200, [""]),
            "/v1/models": (200, [json.dumps({"data": [{"id": "m"}]})]) if key == "Bearer k" else (401, [""]),
            "/metrics": (200, [METRICS]) if key == "Bearer k" else (401, [""]),
            "/openapi.json": (200, [json.dumps({"paths": self.listed})]) if key == "Bearer k" else (401, [""]),
        }
        self.answer(*{**right, **self.faults}.get(self.path, (404 if key else 401, [""])))

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != "Bearer k":
            self.answer(*self.open.get(self.path, (401, [""])))
            return
        body = json.loads(text)
        self.asked.append(body)
        whole = [json.dumps({"choices": [{"message": {"content": "R"}}]})]
        self.answer(*self.faults.get(self.path, (200, streamed("Ro", "me") if body.get("stream") else whole)))

    def answer(self, status, parts):
        self.send_response(status)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for part in filter(None, parts):
                self.wfile.write(f"{len(part.encode()):x}\r\n{part}\r\n".encode())
            self.wfile.write(b"0\r\n\r\n")
        except (ConnectionError, Cut):
            self.close_connection = True

    def log_message(self, *_):
        pass


class Cut(Exception):
    """The connection is closed in the middle of an answer."""


def endless(part):
    while not FakeEngine.ended.is_set():
        yield part


def hanging():
    FakeEngine.ended.wait()
    yield ""


def cut(part):
    yield part
    raise Cut


@pytest.fixture
def engine(disk, monkeypatch):
    """The fake's class, and what is served, as in generation.json."""
    (disk / "etc" / "api-key").write_text("k\n")
    monkeypatch.setattr(FakeEngine, "faults", {})
    monkeypatch.setattr(FakeEngine, "asked", [])
    monkeypatch.setattr(FakeEngine, "open", {})
    monkeypatch.setattr(FakeEngine, "ended", threading.Event())
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:9")  # it is not used
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeEngine)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield FakeEngine, {"model": "m", "host": "0.0.0.0", "port": server.server_address[1]}  # noqa: S104 - asked, not bound
    FakeEngine.ended.set()
    server.shutdown()
    server.server_close()


def test_a_healthy_engine_is_verified(engine):
    stand_in, about = engine
    proof.prove(about, 30)
    assert [message["role"] for message in stand_in.asked[0]["messages"]] == ["system", "system", "assistant", "user"]


@pytest.mark.parametrize(("bound", "listen"), [("::1", "::1"), ("::1", "::"), ("::", "::"), ("127.0.0.1", "0.0.0.0")])  # noqa: S104
def test_an_engine_is_reached_at_any_address(engine, bound, listen):
    stand_in, about = engine
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    server = type("Server", (ThreadingHTTPServer,), {"address_family": family})((bound, 0), stand_in)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    proof.prove({**about, "host": listen, "port": server.server_address[1]}, 30)
    server.shutdown()
    server.server_close()


_CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("path", "status", "parts", "found"),
    [
        ("/health", 500, [""], "/health answered 500, expected 200"),
        ("/v1/models", 200, ['{"data": [{"id": "m"}]}'], "/v1/models answered 200, expected 401"),
        (_CHAT, 404, ["{}"], "completions answered 404, expected 200"),
        (
            _CHAT,
            400,
            ['{"error": {"message": "no\\n template"}}'],
            "answered 400, expected 200: no template",
        ),
        (_CHAT, 500, ["<html>"], "completions answered 500, expected 200$"),
        (_CHAT, 200, streamed(""), "the reply is '', which is not text"),
        (_CHAT, 200, streamed("!!", "!!!"), "the reply is '!!!!!', which is not text"),
        (_CHAT, 200, ['data: {"error": {"message": "out of memory"}}\n\n', "data: [DONE]\n\n"], "out of memory"),
        (_CHAT, 200, streamed("Ro", "me", usage=False), "without token counts"),
        (_CHAT, 200, ["data: {nonsense\n"], "the stream of a reply is not JSON: '{nonsense'"),
        (_CHAT, 200, ["data: [1]\n"], r"the stream of a reply is not a JSON object: '\[1\]'"),
        (_CHAT, 200, cut(streamed("Ro")[0]), "completions did not answer: "),
    ],
)
def test_each_fault_is_reported(engine, path, status, parts, found):
    stand_in, about = engine
    stand_in.faults[path] = (status, parts)
    with pytest.raises(Failure, match=found):
        proof.prove(about, 30)


@pytest.mark.parametrize(
    ("path", "status", "found"),
    [
        ("/invocations", 200, "POST /invocations answered 200 without the API key, expected 401"),
        ("/tokenize", 422, "POST /tokenize answered 422 without the API key"),
        ("/scale_elastic_ep", 405, "POST /scale_elastic_ep answered 405 without the API key"),
        ("/new", 400, "POST /new answered 400 without the API key"),
        ("/new", 404, "POST /new answered 404 without the API key"),  # the engine lists it, so it was requested
    ],
)
def test_a_route_that_answers_without_the_key_is_a_failure(engine, monkeypatch, path, status, found):
    stand_in, about = engine
    monkeypatch.setattr(stand_in, "listed", {"/new": {"post": {"requestBody": {}}}})
    stand_in.open[path] = (status, ["{}"])
    with pytest.raises(Failure, match=found):
        proof.prove(about, 30)
    proof.prove(about, 30, closed=False)


def test_a_listed_route_without_a_body_is_not_called(engine, monkeypatch):
    stand_in, about = engine
    monkeypatch.setattr(stand_in, "listed", {"/melt/{part}": {"post": {}}, "/health": {"get": {}}})
    stand_in.faults["/melt/x"] = (405, [""])
    with pytest.raises(proof.Open, match="GET /melt/x answered 405 without the API key"):
        proof.prove(about, 30)


@pytest.mark.parametrize("answer", [(404, [""]), (500, [""])])
def test_without_a_list_the_known_routes_are_checked(engine, answer):
    stand_in, about = engine
    stand_in.faults["/openapi.json"] = answer
    stand_in.open["/tokenize"] = (200, ["{}"])
    with pytest.raises(proof.Open, match="POST /tokenize answered 200"):
        proof.prove(about, 30)


@pytest.mark.parametrize(
    ("listing", "found"),
    [
        ('{"data": [{"id": "other"}]}', r"/v1/models lists \['other'\], expected m"),
        ('{"data": null}', r"/v1/models lists \[\], expected m"),
        ('{"data": 7}', r"/v1/models lists \[\], expected m"),
        ("<html>", "/v1/models is not JSON: '<html>'"),
        ("[" * 100_000, "/v1/models is not JSON"),
    ],
)
def test_another_model_is_a_failure(engine, listing, found, monkeypatch):
    stand_in, about = engine
    answer = stand_in.answer
    monkeypatch.setattr(stand_in, "answer", lambda self, status, _: answer(self, status, [listing]))
    with pytest.raises(Failure, match=found):
        proof.prove(about, 30)


@pytest.mark.parametrize("listed", [["/new"], {"/new": None}, {"/new": {"post": None}}, {"@example.org/": {"get": {}}}])
def test_invalid_routes_are_a_failure(engine, monkeypatch, listed):
    stand_in, about = engine
    monkeypatch.setattr(stand_in, "listed", listed)
    with pytest.raises(Failure, match=r"/openapi\.json (has no list of routes|lists )"):
        proof.prove(about, 30)


@pytest.mark.parametrize(
    "chunk", [{"choices": 7}, {"choices": ["Ro"]}, {"choices": [{"delta": {"content": 7}}]}, {"usage": [1]}]
)
def test_an_invalid_stream_is_a_failure(engine, chunk):
    stand_in, about = engine
    stand_in.faults[_CHAT] = (200, [f"data: {json.dumps(chunk)}\n\n"])
    with pytest.raises(Failure, match="the reply has an invalid event"):
        proof.prove(about, 30)


@pytest.mark.parametrize("parts", [hanging(), endless("data: {}\n\n"), endless("x" * 99)])
def test_an_endless_answer_is_a_failure(engine, parts):
    stand_in, about = engine
    stand_in.faults[_CHAT] = (200, parts)
    with pytest.raises(Failure, match="completions did not finish its answer in time"):
        proof.prove(about, 1)


def test_an_answer_larger_than_any_reply_is_refused(engine, monkeypatch):
    stand_in, about = engine
    monkeypatch.setattr(proof, "_ANSWER_LIMIT_BYTES", 1000)
    stand_in.faults["/health"] = (200, endless("x" * 99))
    with pytest.raises(Failure, match="/health answered with more than"):
        proof.prove(about, 30)


def test_no_server_at_the_port_is_reported(engine):
    _, about = engine
    with pytest.raises(Failure, match=r"/health did not answer: .*refused"):
        proof.health({**about, "host": "127.0.0.2"}, 5)
    assert proof.idle({**about, "host": "127.0.0.2"})


def test_progress_sums_the_tokens_of_all_engines(engine):
    stand_in, about = engine
    assert proof.progress(about, 30) == (False, 110)
    assert proof.idle(about)
    stand_in.faults["/metrics"] = (200, [METRICS.replace('waiting{engine="0",model_name="m"} 0', "waiting 2")])
    assert proof.progress(about, 30) == (True, 110)
    assert not proof.idle(about)


def test_progress_of_llama_cpp_needs_the_key(engine):
    stand_in, about = engine
    metrics = (
        "# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 1\nllamacpp:requests_deferred 0\n"
        "llamacpp:prompt_tokens_total 35\nllamacpp:tokens_predicted_total 15\n"
    )
    stand_in.faults["/metrics"] = (200, [metrics])
    assert proof.progress(about, 30) == (True, 50)
    assert stand_in.keys["/metrics"] == "Bearer k"


@pytest.mark.parametrize("answer", [(404, [""]), (200, [""]), (200, ["process_open_fds 12.0\n"])])
def test_an_engine_without_metrics_has_no_progress_and_is_not_idle(engine, answer):
    stand_in, about = engine
    stand_in.faults["/metrics"] = answer
    assert proof.progress(about, 30) is None
    assert not proof.idle(about)


def test_the_liveness_check_requests_one_token(engine):
    stand_in, about = engine
    proof.one_token(about, 30)
    assert stand_in.asked[0]["max_tokens"] == 1
    stand_in.faults[_CHAT] = (200, ['{"choices": []}'])
    with pytest.raises(Failure, match="a completion has no choices"):
        proof.one_token(about, 30)


def test_without_a_key_the_verification_fails(engine):
    store.KEY_FILE.unlink()
    with pytest.raises(Failure, match="api-key"):
        proof.prove(engine[1], 30)


@pytest.mark.parametrize("held", ["schlüssel-€", "ü", "a\nb", ""])
def test_with_an_invalid_key_the_verification_fails(engine, held):
    store.KEY_FILE.write_text(held)
    with pytest.raises(Failure, match="is empty, or has other characters"):
        proof.one_token(engine[1], 30)


def test_an_engine_with_another_key_differs_from_a_failed_one(engine):
    store.KEY_FILE.write_text("another")
    with pytest.raises(proof.KeyRefused, match="another API key than the one in"):
        proof.prove(engine[1], 30)
