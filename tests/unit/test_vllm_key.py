"""roles/vllm_service/files/vllm_key.py: without the key only the plain health check answers."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.roles import program

KEY = "sesame"
BEARER = [(b"authorization", b"Bearer sesame")]
vllm_key = program("vllm_service", "vllm_key")


def asked(path, method="GET", headers=(), kind="http", **more):
    """The result of a request: the status, "closed" for a websocket, or "reached" if it got to the engine."""
    sent, reached = [], []

    async def app(scope, *_):
        reached.append(scope)

    async def send(message):
        sent.append(message)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_API_KEY", KEY)
        middleware = vllm_key.RequireKey(app)
    scope = {"type": kind, "path": path, "headers": list(headers), **more}
    if kind == "http":
        scope["method"] = method
    asyncio.run(middleware(scope, None, send))
    if reached:
        assert not sent
        return "reached"
    return "closed" if sent[0]["type"] == "websocket.close" else sent[0]["status"]


def test_the_plain_health_check_needs_no_key():
    assert asked("/health") == "reached"


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "get"])
def test_another_method_on_the_health_check_needs_it(method):
    assert asked("/health", method) == 401


@pytest.mark.parametrize(
    "path",
    [
        *("/invocations", "/v1/models", "/metrics", "/docs", "/openapi.json", "/version", "/", "", "/health/"),
        *(
            "//health",
            "/health/../invocations",
            "/v1/../health",
            "/HEALTH",
            "/health;x",
            "/health\n",
            "/v1",
            "//v1/models",
            "*",
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "HEAD", "OPTIONS", "BREW"])
def test_without_the_key_every_path_is_401(path, method):
    assert asked(path, method) == 401
    preflight = [(b"origin", b"https://a"), (b"access-control-request-method", b"POST")]
    assert asked(path, method, preflight) == 401


@given(path=st.text(), root=st.text(), method=st.sampled_from(["GET", "POST", "OPTIONS"]))
def test_no_path_or_prefix_bypasses_the_key(path, root, method):
    allowed = (method, path) == ("GET", "/health")
    assert asked(path, method, root_path=root) == 401 or allowed


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer wrong")],
        [(b"authorization", b"Bearer ")],
        [(b"authorization", b"sesame")],
        [(b"authorization", b"Basic sesame")],
        [(b"authorization", b"Bearer sesame ")],
        [(b"authorization", b"Bearer \xff\x00")],
        [(b"authorization", b"Bearer wrong"), *BEARER],
        [(b"x-api-key", b"sesame")],
    ],
)
def test_a_wrong_key_is_refused(headers):
    assert asked("/v1/models", headers=headers) == 401


@pytest.mark.parametrize("headers", [BEARER, [(b"Authorization", b"bearer sesame")]])
@pytest.mark.parametrize("path", ["/v1/completions", "/metrics", "/version", "/tokenize", "/openapi.json", "/health"])
def test_with_the_key_the_listed_paths_are_reached(path, headers):
    assert asked(path, "POST", headers) == "reached"


@pytest.mark.parametrize("path", ["/invocations", "/sleep", "/docs", "/metrics/x", "//v1/models", "/v1", "/", "/new"])
def test_with_the_key_nothing_else_is(path):
    assert asked(path, "POST", BEARER) == 404


def test_a_prefix_is_removed_as_in_the_router():
    assert asked("/api/v1/models", headers=BEARER, root_path="/api") == "reached"
    assert asked("/v1/invocations", headers=BEARER, root_path="/v1") == 404
    assert asked("/api/health", root_path="/api") == 401


def test_a_websocket_is_closed_without_the_key():
    assert asked("/v1/realtime", kind="websocket") == "closed"
    assert asked("/health", kind="websocket") == "closed"
    assert asked("/v1/realtime", kind="websocket", headers=BEARER) == "reached"


def test_the_servers_lifespan_is_passed_on():
    assert asked("", kind="lifespan") == "reached"


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_nothing_starts(monkeypatch, key):
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("VLLM_API_KEY", key)
    with pytest.raises((KeyError, ValueError)):
        vllm_key.RequireKey(None)
