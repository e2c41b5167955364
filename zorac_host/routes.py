"""The requests that an engine refuses without the API key. The controller's smoke check uses the list too.

None of them causes work for an engine that refuses nothing. A body is truncated. A route without a body that changes
something is requested with GET, which it does not support: the router's answer is enough to show that no check
precedes it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

# Where vLLM lists its routes; llama.cpp does not.
LISTING = "/openapi.json"
BODY = b"{"
_OPEN = ("GET", "/health")
_METHODS = ("get", "put", "post", "delete", "patch")
_MOST_PATHS = 1000


@dataclass(frozen=True)
class Route:
    """A request that is refused without the key.

    Attributes:
        method: The HTTP method.
        path: The path.
        listed: Whether the engine lists it, so that it exists.
    """

    method: str
    path: str
    listed: bool = False

    def refused_by(self, status: int) -> bool:
        """Whether an answer with that status is a refusal."""
        return status in (401, 403) or (status == 404 and not self.listed)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


# Of vLLM 0.26 and 0.32 and of llama.cpp, and paths that bypass a literal check.
_KNOWN = (
    *("/docs", "/redoc", LISTING, "/load", "/metrics", "/version", "/ping", "/server_info", "/tokenizer_info"),
    *("/v1/models", "/models", "/props", "/slots", "/lora-adapters", "/tools", "/fault_tolerance/status"),
    *("/sleep", "/wake_up", "/pause", "/resume", "/abort_requests", "/reset_prefix_cache", "/start_profile"),
)
_KNOWN_WITH_BODY = (
    *("/invocations", "//invocations", "/invocations/", "/%69nvocations", "/health/../invocations"),
    *("/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/embeddings"),
    *("/completion", "/completions", "/chat/completions", "/responses", "/infill", "/embedding", "/embeddings"),
    *("/tokenize", "/detokenize", "/apply-template", "/generative_scoring", "/inference/v1/generate"),
    *("/pooling", "/classify", "/score", "/rerank", "/scale_elastic_ep", "/collective_rpc"),
)


def guarded(schema: object) -> list[Route]:
    """The routes to refuse without the key: known routes first, then those in the engine's OpenAPI `schema`.

    In this order: harmless requests detect an engine that refuses nothing.

    Raises:
        ValueError: The schema is invalid, or lists what is not a route.
    """
    known = [Route("POST", path) for path in _KNOWN_WITH_BODY] + [Route("GET", path) for path in _KNOWN]
    return list(dict.fromkeys([*known, *_listed(schema)]))


def _listed(schema: object) -> Iterator[Route]:
    paths = (schema.get("paths") or {}) if isinstance(schema, dict) else None
    if not isinstance(paths, dict) or len(paths) > _MOST_PATHS:
        raise ValueError(f"{LISTING} has no list of routes")
    for template, operations in paths.items():
        listed = operations if isinstance(operations, dict) else {"get": operations}
        methods = {verb: operation for verb, operation in listed.items() if verb in _METHODS}
        # Without the slash, what follows the port could be another server's address.
        path_is_one = template.startswith("/") and template.isprintable()
        if not path_is_one or not all(isinstance(operation, dict) for operation in methods.values()):
            raise ValueError(f"{LISTING} lists {template[:60]!r}, which is not a route")
        # A name in braces stands for any part of the path.
        path = "/".join("x" if "{" in part else part for part in template.split("/"))
        for verb, operation in methods.items():
            method = verb.upper() if "requestBody" in operation else "GET"
            if (method, path) != _OPEN:
                yield Route(method, path, listed=True)
