"""Talk to an endpoint: a streamed reply with its measures, and the checks that prove that it serves a client."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import httpx2

from zorac_deploy.errors import EndpointFailed
from zorac_host import routes

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionMessageParam
    from openai.types.completion_usage import CompletionUsage

_LIMIT_SECONDS = 300.0
_SMOKE_TOKENS = 64

Message: TypeAlias = "ChatCompletionMessageParam"

# What the chat client Zorac sends after it has summarised a long conversation.
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
        api_key: The key that it wants.
    """

    url: str
    model: str
    api_key: str = field(repr=False)


@dataclass(frozen=True)
class Measures:
    """How fast a reply came.

    Attributes:
        first_token_seconds: From sending the request to the first text.
        tokens_per_second: Tokens after the first, by the server's own usage count, over the time they took.
        completion_tokens: The reply's length in tokens, by the server's own count.
        prompt_tokens: The prompt's length in tokens, likewise.
    """

    first_token_seconds: float
    tokens_per_second: float
    completion_tokens: int
    prompt_tokens: int


class Reply:
    """A reply as it arrives: iterate over its pieces of text, then read `measures`.

    Iterating raises EndpointFailed where the endpoint refuses or the connection breaks.
    """

    def __init__(self, endpoint: Endpoint, messages: Sequence[Message], max_tokens: int | None = None) -> None:
        self._endpoint, self._messages, self._max_tokens = endpoint, messages, max_tokens
        self.measures: Measures | None = None

    def __iter__(self) -> Iterator[str]:
        import openai  # here, for it takes most of a second, and most commands never chat

        client = openai.OpenAI(
            base_url=f"{self._endpoint.url}/v1",
            api_key=self._endpoint.api_key,
            timeout=_LIMIT_SECONDS,
            max_retries=0,
            http_client=httpx2.Client(trust_env=False, timeout=_LIMIT_SECONDS),
        )
        first, usage, sent = 0.0, None, time.monotonic()
        with client, _translated():
            for chunk in client.chat.completions.create(
                model=self._endpoint.model,
                messages=list(self._messages),
                max_tokens=self._max_tokens if self._max_tokens is not None else openai.omit,
                temperature=0.1,
                stream=True,
                stream_options={"include_usage": True},
            ):
                usage = chunk.usage or usage
                if chunk.choices and chunk.choices[0].delta.content:
                    first = first or time.monotonic()
                    yield chunk.choices[0].delta.content
        self.measures = _measures(sent, first, time.monotonic(), usage)


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn what the OpenAI client raises into our own error."""
    import openai

    try:
        yield
    except openai.APIStatusError as error:
        raise EndpointFailed(f"the endpoint answered {error.status_code}: {error.message}") from None
    except openai.OpenAIError as error:
        raise EndpointFailed(f"the endpoint did not answer: {error}") from None


def _measures(sent: float, first: float, last: float, usage: "CompletionUsage | None") -> Measures | None:
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
    """One thing that an endpoint must do, and whether it did."""

    name: str
    passed: bool
    found: str


@dataclass(frozen=True)
class Smoke:
    """The outcome of all checks, and the measures of the streamed completion."""

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
    """Prove that `endpoint` serves a client such as Zorac. A check that fails is an outcome, not an error."""
    measures: list[Measures] = []

    def streamed() -> str:
        return _stream(endpoint, [{"role": "user", "content": "Tell me in a few sentences about Paris."}], measures)

    probes: dict[str, Callable[[], str]] = {
        "health": lambda: _health(endpoint),
        "models": lambda: _models(endpoint),
        "unauthorized": lambda: _unauthorized(endpoint),
        "zorac-summary": lambda: _stream(endpoint, ZORAC_SUMMARY_SHAPE, []),
        # Last, so that it measures an engine that is warm, and long enough for a speed to mean something.
        "completion": streamed,
    }
    checks = []
    for name, probe in probes.items():
        try:
            check = Check(name, True, probe())
        except (httpx2.HTTPError, EndpointFailed, ValueError) as error:  # what is no JSON is a ValueError
            check = Check(name, False, str(error) or type(error).__name__)
        on_check(check)
        checks.append(check)
    return Smoke(tuple(checks), measures[0] if measures else None)


def _get(endpoint: Endpoint, path: str, api_key: str | None = None) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return httpx2.get(f"{endpoint.url}{path}", headers=headers, timeout=30, trust_env=False)


def _health(endpoint: Endpoint) -> str:
    status = _get(endpoint, "/health").status_code
    if status != httpx2.codes.OK:
        raise EndpointFailed(f"/health answered {status}")
    return "200"


def _models(endpoint: Endpoint) -> str:
    answer = _get(endpoint, "/v1/models", endpoint.api_key)
    if answer.status_code != httpx2.codes.OK:
        raise EndpointFailed(f"/v1/models answered {answer.status_code} with the API key")
    names = [str(model.get("id")) for model in answer.json().get("data", [])]
    if endpoint.model not in names:
        raise EndpointFailed(f"the server lists {', '.join(names) or 'no model'}, not {endpoint.model}")
    return ", ".join(names)


def _unauthorized(endpoint: Endpoint) -> str:
    listing = _get(endpoint, routes.LISTING, endpoint.api_key)
    guarded = routes.guarded(listing.json() if listing.status_code == httpx2.codes.OK else {})
    with httpx2.Client(timeout=30, trust_env=False, headers={"Content-Type": "application/json"}) as client:
        for route in guarded:
            body = routes.BODY if route.method != "GET" else None
            status = client.request(route.method, f"{endpoint.url}{route.path}", content=body).status_code
            if not route.refused_by(status):
                raise EndpointFailed(f"{route} answered {status} without the API key, expected 401")
    return f"{len(guarded)} routes refuse a request without the key"


def _stream(endpoint: Endpoint, messages: Sequence[Message], measures: list[Measures]) -> str:
    reply = Reply(endpoint, messages, _SMOKE_TOKENS)
    text = "".join(reply).strip()
    if not text:
        raise EndpointFailed("the reply is empty")
    if reply.measures is None:
        raise EndpointFailed("the stream ended without usage counts")
    measures.append(reply.measures)
    return text
