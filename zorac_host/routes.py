"""Which requests an engine refuses without the API key. The smoke check of the controller uses the list too.

None of them makes an engine work, even one that refuses nothing. A body is cut short. A route that takes no body and
changes something is asked with GET, which it does not know: an answer of the router shows well enough that nothing
stands before it.
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
        method: Its method.
        path: Its path.
        listed: Whether the engine itself lists it, so that it is there.
    """

    method: str
    path: str
    listed: bool = False

    def refused_by(self, status: int) -> bool:
        """Whether an answer of that status is a refusal, rather than the engine's word."""
        return status in (401, 403) or (status == 404 and not self.listed)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


# Of vLLM 0.26 and 0.32 and of llama.cpp, and ways around a check that reads paths too literally.
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
    """What is to be refused without the key: what is known, and after it what the engine's OpenAPI `schema` lists.

    In this order, for an engine that refuses nothing is found out by what is harmless.

    Raises:
        ValueError: The schema is none, or lists what is no route.
    """
    known = [Route("POST", path) for path in _KNOWN_WITH_BODY] + [Route("GET", path) for path in _KNOWN]
    return list(dict.fromkeys([*known, *_listed(schema)]))


def _listed(schema: object) -> Iterator[Route]:
    paths = (schema.get("paths") or {}) if isinstance(schema, dict) else None
    if not isinstance(paths, dict) or len(paths) > _MOST_PATHS:
        raise ValueError(f"{LISTING} holds no list of routes")
    for template, operations in paths.items():
        listed = operations if isinstance(operations, dict) else {"get": operations}
        methods = {word: operation for word, operation in listed.items() if word in _METHODS}
        # Without the slash, what follows the port could be another server's address.
        path_is_one = template.startswith("/") and template.isprintable()
        if not path_is_one or not all(isinstance(operation, dict) for operation in methods.values()):
            raise ValueError(f"{LISTING} lists {template[:60]!r}, which is no route")
        # A name in braces stands for a part of the path; any part will do.
        path = "/".join("x" if "{" in part else part for part in template.split("/"))
        for word, operation in methods.items():
            method = word.upper() if "requestBody" in operation else "GET"
            if (method, path) != _OPEN:
                yield Route(method, path, listed=True)
