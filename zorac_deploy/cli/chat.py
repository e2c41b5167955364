"""`zorac-deploy chat`."""

from __future__ import annotations

import click

from zorac_deploy import chat as talk
from zorac_deploy.cli.common import errors, host_options, output, reached, session, words
from zorac_deploy.cli.terminal import marked
from zorac_deploy.errors import EndpointFailed


@click.command()
@host_options
@click.option("-m", "--message", help="Ask one question, print the reply and exit.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=1000, show_default=True, help="Longest reply, in tokens."
)
def chat(message: str | None, max_tokens: int, **host: object) -> None:
    """Chat with the model on HOST.

    /new starts a new conversation, Ctrl-C stops a reply, Ctrl-D or /quit exits. The conversation is not stored.

    \b
    Examples:
      zorac-deploy chat tower
      zorac-deploy chat tower -m "What is the capital of France?"
    """
    with session(words(host)) as opened, reached(opened) as (found, endpoint):
        if message is not None:
            _say(endpoint, [{"role": "user", "content": message}], max_tokens)
            return
        output.print(marked("[dim]{} on {}. /new starts a new conversation, /quit exits.[/]", found.model, found.host))
        _converse(endpoint, max_tokens)


def _converse(endpoint: talk.Endpoint, max_tokens: int) -> None:
    history: list[talk.Message] = []
    while True:
        try:
            said = output.input(marked("[bold cyan]you>[/] ")).strip()
        except (EOFError, KeyboardInterrupt):
            output.print()
            return
        if said == "/quit":
            return
        if said == "/new":
            history.clear()
            continue
        if not said:
            continue
        question: talk.Message = {"role": "user", "content": said}
        try:
            reply = _say(endpoint, [*history, question], max_tokens)
        except EndpointFailed as error:
            errors.print(marked("[red]{}[/] Type /new to start a new conversation.", error), soft_wrap=True)
        except KeyboardInterrupt:
            output.print(" (stopped; this question is dropped)", style="dim")
        else:
            history += [question, {"role": "assistant", "content": reply}]


def _say(endpoint: talk.Endpoint, messages: list[talk.Message], max_tokens: int) -> str:
    """Print the reply to `messages` as it arrives, and return it."""
    reply, pieces = talk.Reply(endpoint, messages, max_tokens), []
    for piece in reply:
        output.print(piece, end="", soft_wrap=True)
        pieces.append(piece)
    output.print()
    if reply.measures and output.is_terminal:
        output.print(_in_words(reply.measures), style="dim")
    return "".join(pieces)


def _in_words(measures: talk.Measures) -> str:
    first = f"time to first token {measures.first_token_seconds * 1000:.0f} ms"
    return f"{first}, {measures.tokens_per_second:.1f} tokens/s, {measures.completion_tokens} tokens"
