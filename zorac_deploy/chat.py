"""Talk to an endpoint: stream a reply and measure it, and check that the endpoint serves a client."""

import contextlib
import json
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import httpx2
from pydantic import BaseModel, ValidationError

from zorac_deploy.errors import EndpointFailed
from zorac_host import routes

_LIMIT_SECONDS = 300.0
# Long enough for a meaningful speed; and enough to see that a conversation of this shape is answered.
_SMOKE_TOKENS, _SHORT_TOKENS = 32, 8
_ANSWER_LIMIT_BYTES = 4 * 2**20
# An event of the stream carries at least one token, in a few hundred bytes as a rule.
_EVENT_LIMIT_BYTES = 8 * 2**10

Message = Mapping[str, str]

# The request that the chat client Zorac sends after it summarised a long conversation.
ZORAC_SUMMARY_SHAPE: list[Message] = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "system", "content": "Summary of the conversation so far: the user asked about capitals."},
    {"role": "assistant", "content": "The capital of France is Paris."},
    {"role": "user", "content": "Say it once more, in one short sentence."},
]


@dataclass(frozen=True)
class Endpoint:
    """An OpenAI-compatible server.

    Attributes:
        url: Its root, without ``/v1``.
        model: The name of the model to ask for.
        api_key: Its API key.
    """

    url: str
    model: str
    api_key: str = field(repr=False)


@dataclass(frozen=True)
class Measures:
    """How fast a reply arrived.

    Attributes:
        first_token_seconds: The time to the first text, from sending the request.
        tokens_per_second: Tokens after the first, by the server's count, per second.
        completion_tokens: The reply's length in tokens, by the server's count.
        prompt_tokens: The prompt's length in tokens, by the server's count.
    """

    first_token_seconds: float
    tokens_per_second: float
    completion_tokens: int
    prompt_tokens: int


class _Delta(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    delta: _Delta
    finish_reason: str | None = None


class _Usage(BaseModel):
    completion_tokens: int
    prompt_tokens: int


class _Chunk(BaseModel):
    """One event of a streamed reply."""

    choices: tuple[_Choice, ...] = ()
    usage: _Usage | None = None


class Reply:
    """A reply as it arrives: iterate over its pieces of text, then read `measures`, and `cut`.

    Raises EndpointFailed if the endpoint refuses, the connection breaks, or an event is invalid.

    Attributes:
        measures: How fast it arrived; None until its end, and if the endpoint does not count tokens.
        cut: Whether it ended at the token limit.
    """

    def __init__(self, endpoint: Endpoint, messages: Sequence[Message], max_tokens: int) -> None:
        self._endpoint, self._messages, self._max_tokens = endpoint, messages, max_tokens
        self.measures: Measures | None = None
        self.cut = False

    def __iter__(self) -> Iterator[str]:
        first, last, usage, pieces = 0.0, 0.0, None, 0
        sent = last = time.monotonic()
        for data in self._events():
            chunk = _chunk(data)
            usage = chunk.usage or usage
            for choice in chunk.choices[:1]:
                self.cut = choice.finish_reason == "length"
                if choice.delta.content:
                    last = time.monotonic()
                    first, pieces = first or last, pieces + 1
                    if pieces > self._max_tokens:
                        raise EndpointFailed(f"the endpoint sent more than the limit of {self._max_tokens} tokens")
                    yield choice.delta.content
            if time.monotonic() - last > _LIMIT_SECONDS:
                raise EndpointFailed(f"the endpoint sent no text for {_LIMIT_SECONDS:.0f} s")
        self.measures = _measures(sent, first, time.monotonic(), usage)

    def _events(self) -> Iterator[str]:
        """The content of the stream's events; an empty text for a line without content."""
        body = {
            "model": self._endpoint.model,
            "messages": list(self._messages),
            "max_tokens": self._max_tokens,
            "temperature": 0.1,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {"Authorization": f"Bearer {self._endpoint.api_key}"}
        url = f"{self._endpoint.url}/v1/chat/completions"
        with (
            _translated(),
            _client(_LIMIT_SECONDS) as client,
            client.stream("POST", url, json=body, headers=headers) as answer,
        ):
            if answer.status_code != httpx2.codes.OK:
                content = _content(answer, _ANSWER_LIMIT_BYTES)
                raise EndpointFailed(f"the endpoint answered {answer.status_code}: {_reason(content)}")
            rest = b""
            for part in _parts(answer, _ANSWER_LIMIT_BYTES + self._max_tokens * _EVENT_LIMIT_BYTES):
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    name, _, value = line.decode(errors="replace").partition(":")
                    data = value.strip() if name == "data" else ""
                    if data == "[DONE]":
                        return
                    yield data


def _client(limit: float) -> httpx2.Client:
    """An HTTP client that waits for `limit` seconds and ignores the environment's proxies."""
    # The endpoint speaks HTTP: an empty TLS context is created faster than one with certificates.
    return httpx2.Client(trust_env=False, timeout=limit, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Convert the HTTP client's errors to ours."""
    try:
        yield
    except httpx2.HTTPError as error:
        raise EndpointFailed(f"the endpoint did not answer: {error or type(error).__name__}") from None


def _parts(answer: httpx2.Response, limit: int) -> Iterator[bytes]:
    """The answer's body as it arrives, up to `limit` bytes."""
    size = 0
    for part in answer.iter_bytes():
        size += len(part)
        if size > limit:
            raise EndpointFailed(f"{answer.url.path} sent more than {limit >> 20} MiB")
        yield part


def _content(answer: httpx2.Response, limit: int) -> bytes:
    return b"".join(_parts(answer, limit))


def _chunk(data: str) -> _Chunk:
    """Parse `data` as an event."""
    if not data:
        return _Chunk()
    event = _json(data)
    if isinstance(event, dict) and event.get("error"):
        raise EndpointFailed(f"the endpoint failed: {_reason(data.encode())}")
    try:
        return _Chunk.model_validate(event)
    except ValidationError:
        raise EndpointFailed(f"the endpoint sent an invalid event: {data[:60]!r}") from None


def _json(text: str | bytes) -> object:
    """Parse `text` as JSON.

    Raises:
        EndpointFailed: It is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise EndpointFailed(f"the endpoint did not send JSON: {text[:60]!r}") from None


def _reason(content: bytes) -> str:
    """The message of an error response."""
    with contextlib.suppress(EndpointFailed, KeyError, TypeError):
        parsed = _json(content)
        error = parsed["error"]  # type: ignore[index]  # what it is, is asked by trying
        return str(error["message"] if isinstance(error, dict) else error)
    return content[:500].decode(errors="replace").strip() or "nothing"


def _measures(sent: float, first: float, last: float, usage: _Usage | None) -> Measures | None:
    if usage is None or not first:
        return None
    after_first = usage.completion_tokens - 1
    return Measures(
        first_token_seconds=first - sent,
        tokens_per_second=after_first / (last - first) if after_first > 0 and last > first else 0.0,
        completion_tokens=usage.completion_tokens,
        prompt_tokens=usage.prompt_tokens,
    )


@dataclass(frozen=True)
class Check:
    """The result of one check of an endpoint."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Smoke:
    """The results of all checks, and the measures of the streamed completion."""

    checks: tuple[Check, ...]
    measures: Measures | None

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failed(self) -> list[str]:
        """The names of the checks that did not pass."""
        return [check.name for check in self.checks if not check.passed]

    def summary(self) -> dict[str, object]:
        """What `smoke --json` prints."""
        return {"passed": self.passed, **asdict(self)}


def smoke(endpoint: Endpoint, on_check: Callable[[Check], None] = lambda _: None) -> Smoke:
    """Check that `endpoint` serves a client such as Zorac. A failed check is a result, not an error."""
    measures: list[Measures] = []

    def streamed() -> str:
        question = [{"role": "user", "content": "Tell me in a few sentences about Paris."}]
        return _stream(endpoint, question, _SMOKE_TOKENS, measures)

    probes: dict[str, Callable[[], str]] = {
        "health": lambda: _health(endpoint),
        "models": lambda: _models(endpoint),
        "unauthorized": lambda: _unauthorized(endpoint),
        "zorac-summary": lambda: _stream(endpoint, ZORAC_SUMMARY_SHAPE, _SHORT_TOKENS, []),
        # Last, with a warm engine, and long enough for a meaningful speed.
        "completion": streamed,
    }
    checks = []
    for name, probe in probes.items():
        try:
            check = Check(name, True, probe())
        except EndpointFailed as error:
            check = Check(name, False, str(error))
        on_check(check)
        checks.append(check)
    return Smoke(tuple(checks), measures[0] if measures else None)


def _get(endpoint: Endpoint, path: str, api_key: str | None = None) -> tuple[int, bytes]:
    """Request `path`; return the status and the body."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    url = f"{endpoint.url}{path}"
    with (
        _translated(),
        _client(30) as client,
        client.stream("GET", url, headers=headers) as answer,
    ):
        return answer.status_code, _content(answer, _ANSWER_LIMIT_BYTES)


def _health(endpoint: Endpoint) -> str:
    status, _ = _get(endpoint, "/health")
    if status != httpx2.codes.OK:
        raise EndpointFailed(f"/health answered {status}")
    return "200"


def _models(endpoint: Endpoint) -> str:
    status, content = _get(endpoint, "/v1/models", endpoint.api_key)
    if status != httpx2.codes.OK:
        raise EndpointFailed(f"/v1/models answered {status} with the API key")
    listing = _json(content)
    models = listing.get("data") if isinstance(listing, dict) else None
    names = [str(model.get("id")) for model in models if isinstance(model, dict)] if isinstance(models, list) else []
    if endpoint.model not in names:
        raise EndpointFailed(f"the server lists {', '.join(names) or 'no model'}, not {endpoint.model}")
    return ", ".join(names)


def _unauthorized(endpoint: Endpoint) -> str:
    status, content = _get(endpoint, routes.LISTING, endpoint.api_key)
    try:
        guarded = routes.guarded(_json(content) if status == httpx2.codes.OK else {})
    except ValueError as error:
        raise EndpointFailed(str(error)) from None
    headers = {"Content-Type": "application/json"}
    with _translated(), _client(30) as client:
        for route in guarded:
            body = routes.BODY if route.method != "GET" else None
            with client.stream(route.method, f"{endpoint.url}{route.path}", content=body, headers=headers) as answer:
                if not route.refused_by(answer.status_code):
                    raise EndpointFailed(f"{route} answered {answer.status_code} without the API key, expected 401")
    return f"{len(guarded)} routes refuse a request without the key"


def _stream(endpoint: Endpoint, messages: Sequence[Message], max_tokens: int, measures: list[Measures]) -> str:
    reply = Reply(endpoint, messages, max_tokens)
    text = "".join(reply).strip()
    if not text:
        raise EndpointFailed("the reply is empty")
    if reply.measures is None:
        raise EndpointFailed("the stream ended without usage counts")
    measures.append(reply.measures)
    return text
