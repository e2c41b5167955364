"""Verify an engine with a client's requests: the health check returns 200 even while the engine hangs."""

import contextlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any

from zorac_host import routes, store
from zorac_host.service import Failure

_ANSWER_LIMIT_BYTES = 16 * 2**20
_MESSAGE_LIMIT_BYTES, _MESSAGE_LIMIT = 64 * 2**10, 300

# The metrics of vLLM and llama.cpp for requests in progress, and for tokens generated and read.
_METRICS = (
    (
        ("vllm:num_requests_running", "vllm:num_requests_waiting"),
        ("vllm:generation_tokens_total", "vllm:prompt_tokens_total"),
    ),
    (
        ("llamacpp:requests_processing", "llamacpp:requests_deferred"),
        ("llamacpp:tokens_predicted_total", "llamacpp:prompt_tokens_total"),
    ),
)

# without the environment's proxies: the engine is on this host
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# The order of roles after Zorac summarised a conversation; some templates refuse it.
_MESSAGES = [
    {"role": "system", "content": "You answer in one short sentence."},
    {"role": "system", "content": "Summary so far: the user asked about capitals."},
    {"role": "assistant", "content": "The capital of France is Paris."},
    {"role": "user", "content": "And the capital of Italy?"},
]


def prove(manifest: Mapping[str, Any], limit: float, closed: bool = True) -> None:
    """Require all that a client needs: health, the model's name, a refusal without the key, and a streamed reply.

    Args:
        manifest: The generation's ``generation.json``.
        limit: The limit for all requests, in seconds.
        closed: Whether to require that every route of the engine refuses a request without the key.

    Raises:
        Open: A request without the key is not refused.
        Failure: Another requirement is not met.
    """
    deadline = time.monotonic() + limit
    key = _key()
    _expect(manifest, "/health", None, 200, deadline)
    try:
        _expect(manifest, "/v1/models", None, 401, deadline)
    except _Status as answer:
        raise Open(str(answer)) from None
    listing = _json(_expect(manifest, "/v1/models", key, 200, deadline), "/v1/models")
    models = listing.get("data")
    names = [model.get("id") for model in models if isinstance(model, dict)] if isinstance(models, list) else []
    if manifest["model"] not in names:
        raise Failure(f"/v1/models lists {names}, expected {manifest['model']}")
    if closed:
        _require_closed(manifest, key, deadline)
    _reply(manifest, key, deadline)


def health(manifest: Mapping[str, Any], limit: float) -> None:
    """Require a healthy answer.

    Raises:
        Failure: It does not come within `limit` seconds.
    """
    _expect(manifest, "/health", None, 200, time.monotonic() + limit)


def one_token(manifest: Mapping[str, Any], limit: float) -> None:
    """Require one token.

    Raises:
        Failure: It does not come within `limit` seconds.
    """
    body = {"model": manifest["model"], "messages": _MESSAGES[-1:], "max_tokens": 1}
    key = _key()
    answer = _json(_expect(manifest, "/v1/chat/completions", key, 200, time.monotonic() + limit, body), "a completion")
    if not answer.get("choices"):
        raise Failure("a completion has no choices")


def progress(manifest: Mapping[str, Any], limit: float) -> tuple[bool, float] | None:
    """Whether the engine has requests, and how many tokens it has read and generated; None without metrics.

    Raises:
        Failure: It does not answer.
    """
    key = _key()  # llama.cpp requires it for the metrics too
    try:
        text = _expect(manifest, "/metrics", key, 200, time.monotonic() + limit)
    except _Status:
        return None
    totals: dict[str, float] = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        name = name.partition("{")[0]
        if name.startswith(("vllm:", "llamacpp:")):
            with contextlib.suppress(ValueError):  # another program's output
                totals[name] = totals.get(name, 0) + float(value)
    for requests, tokens in _METRICS:
        if tokens[0] in totals:
            return any(totals.get(name, 0) > 0 for name in requests), sum(totals.get(name, 0) for name in tokens)
    return None


def _key() -> str:
    try:
        return store.key()
    except (OSError, ValueError) as error:
        raise Failure(str(error)) from None


def idle(manifest: Mapping[str, Any]) -> bool:
    """Whether the engine reports no requests, or does not answer. False if it has no metrics."""
    try:
        load = progress(manifest, 2)
    except Failure:
        return True
    return load is not None and not load[0]


def _require_closed(manifest: Mapping[str, Any], key: str, deadline: float) -> None:
    """Require that only the health check answers without the key."""
    try:
        schema = _json(_expect(manifest, routes.LISTING, key, 200, deadline), routes.LISTING)
    except _Status:
        schema = {}  # an engine that lists no routes
    try:
        guarded = routes.guarded(schema)
    except ValueError as error:
        raise Failure(str(error)) from None
    for route in guarded:
        status = _status(manifest, route, deadline)
        if not route.refused_by(status):
            raise Open(f"{route} answered {status} without the API key, expected 401")


def _reply(manifest: Mapping[str, Any], key: str, deadline: float) -> None:
    body = {
        "model": manifest["model"],
        "messages": _MESSAGES,
        "max_tokens": 8,
        "temperature": 0.1,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    text, tokens = "", None
    for line in _lines(_request(manifest, "/v1/chat/completions", key, body), deadline):
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            break
        chunk = _json(data, "the stream of a reply")
        if chunk.get("error"):
            raise Failure(f"the reply is an error: {str(chunk['error'])[:200]}")
        try:
            for choice in chunk.get("choices") or []:
                text += (choice.get("delta") or {}).get("content") or ""
            tokens = (chunk.get("usage") or {}).get("completion_tokens") or tokens
        except (AttributeError, TypeError):
            raise Failure(f"the reply has an invalid event: {data[:60]!r}") from None
    if len(set(text.strip())) < 2:
        # A model whose numbers overflow repeats one character, usually "!!!!".
        raise Failure(f"the reply is {text[:40]!r}, which is not text")
    if not tokens:
        raise Failure("the streamed reply ended without token counts")


class _Status(Failure):
    """The engine answered with an unexpected status, `status`."""

    def __init__(self, path: str, status: int, expected: int, message: str = "") -> None:
        super().__init__(f"{path} answered {status}, expected {expected}{f': {message}' if message else ''}")
        self.status = status


class Open(Failure):
    """The engine answers requests without the key."""


class KeyRefused(_Status):
    """The engine answers, but refuses the current key."""

    def __init__(self, path: str) -> None:
        super().__init__(path, 401, 200)
        self.args = (
            f"{path} answered 401: the engine was started with another API key than the one in {store.KEY_FILE}",
        )


def _expect(
    manifest: Mapping[str, Any], path: str, key: str | None, status: int, deadline: float, body: object = None
) -> str:
    return "\n".join(_lines(_request(manifest, path, key, body), deadline, status))


def _status(manifest: Mapping[str, Any], route: routes.Route, deadline: float) -> int:
    """The status of a request without the key."""
    request = _request(manifest, route.path, None)
    request.method = route.method
    request.data = routes.BODY if route.method != "GET" else None
    try:
        next(_lines(request, deadline), "")
    except _Status as answer:
        return answer.status
    return 200


def _request(manifest: Mapping[str, Any], path: str, key: str | None, body: object = None) -> urllib.request.Request:
    # Linux connects 0.0.0.0 and :: to loopback.
    host = f"[{manifest['host']}]" if ":" in str(manifest["host"]) else str(manifest["host"])
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    data = json.dumps(body).encode() if body is not None else None
    return urllib.request.Request(f"http://{host}:{manifest['port']}{path}", data, headers)


def _lines(request: urllib.request.Request, deadline: float, status: int = 200) -> Iterator[str]:
    """The lines of the answer as they arrive."""
    path, message = request.selector, ""
    try:
        with _OPENER.open(request, timeout=max(1.0, deadline - time.monotonic())) as answer:
            actual, rest, size = answer.status, b"", 0
            while actual == status and (part := answer.read1()):
                size += len(part)
                if time.monotonic() > deadline:
                    raise TimeoutError
                if size > _ANSWER_LIMIT_BYTES:
                    raise Failure(f"{path} answered with more than {_ANSWER_LIMIT_BYTES >> 20} MiB")
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    yield line.decode("utf-8", "replace").rstrip("\r")
            yield rest.decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        actual, message = error.code, _message(error)
    except TimeoutError:
        raise Failure(f"{path} did not finish its answer in time") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise Failure(f"{path} did not answer in time") from None
        raise Failure(f"{path} did not answer: {reason}") from None
    if (actual, status) == (401, 200) and request.has_header("Authorization"):
        raise KeyRefused(path)
    if actual != status:
        raise _Status(path, actual, status, message)


def _message(error: urllib.error.HTTPError) -> str:
    """The message in the body of an error, if the engine sent one."""
    try:
        body = json.loads(error.read(_MESSAGE_LIMIT_BYTES))
        details = body.get("error") or body
        return " ".join(str(details["message"]).split())[:_MESSAGE_LIMIT].rstrip(".")
    except (OSError, http.client.HTTPException, ValueError, RecursionError, AttributeError, KeyError, TypeError):
        return ""


def _json(text: str, of: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise Failure(f"{of} is not JSON: {text[:60]!r}") from None
    if not isinstance(content, dict):
        raise Failure(f"{of} is not a JSON object: {text[:60]!r}")
    return content
