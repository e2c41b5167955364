"""ASGI middleware: without the API key, only the health check answers. vLLM's own check covers only ``/v1``.

Unknown routes are refused: a route that a later vLLM adds stays closed until it is listed here.
"""

import hashlib
import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEALTH = "/health"
# The routes for a client with the key. Routes that control the engine are missing: /sleep, /pause, /scale_elastic_ep.
_PREFIX = "/v1/"
_PATHS = frozenset({_HEALTH, "/load", "/metrics", "/openapi.json", "/tokenize", "/detokenize", "/version"})


class RequireKey:
    """Passes on requests with the key and a listed path, and the plain health check."""

    def __init__(self, app: App) -> None:
        key = os.environ["VLLM_API_KEY"]
        if not key:
            raise ValueError("the API key is empty")
        self._app, self._key = app, hashlib.sha256(key.encode()).digest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Decide on one request or connection by its path, method and key."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        path = _route(scope)
        if scope["type"] == "http" and scope["method"] == "GET" and path == scope["path"] == _HEALTH:
            await self._app(scope, receive, send)
        elif not self._has_key(scope):
            await _refuse(scope, send, 401, "Unauthorized")
        elif path in _PATHS or path.startswith(_PREFIX):
            await self._app(scope, receive, send)
        else:
            await _refuse(scope, send, 404, "Not Found")

    def _has_key(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, key = given[0].partition(b" ")
        # Digests have the same length for any input, and are compared in constant time.
        return hmac.compare_digest(hashlib.sha256(key).digest(), self._key) and scheme.lower() == b"bearer"


def _route(scope: Scope) -> str:
    """The path for routing, as Starlette computes it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    rest = path.removeprefix(root)
    return rest if rest.startswith("/") else path


async def _refuse(scope: Scope, send: Send, status: int, reason: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": reason})
        return
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
