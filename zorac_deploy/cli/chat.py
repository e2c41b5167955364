"""`zorac-deploy chat`."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import click

from zorac_deploy import chat as talk
from zorac_deploy.cli.common import collect_options, errors, host_options, output, reached, session
from zorac_deploy.cli.terminal import Stream, marked
from zorac_deploy.errors import EndpointFailed

_HELP = """\
/new      Start a new conversation
/help     Show this help
/quit     End the chat; also Ctrl-D
Up, Down  Show earlier questions
Alt-Enter Insert a new line; pasted lines are kept
Ctrl-C    Stop a reply"""
_COMMAND = re.compile("/[a-z?]*")


@click.command()
@host_options
@click.option("-m", "--message", help="Ask one question, print the reply and exit.")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=1000, show_default=True, help="Longest reply, in tokens."
)
def chat(message: str | None, max_tokens: int, **host: object) -> None:
    """Chat with the model on HOST.

    /help lists the commands and keys. Ctrl-C stops a reply, Ctrl-D or /quit exits. The conversation is not stored.

    \b
    Examples:
      zorac-deploy chat tower
      zorac-deploy chat tower -m "What is the capital of France?"
    """
    with session(collect_options(host)) as opened, reached(opened) as (served, endpoint):
        if served.not_serving:
            raise EndpointFailed(served.not_serving)
        if message is not None:
            _stream_reply(endpoint, [{"role": "user", "content": message}], max_tokens)
            return
        output.print(marked("[dim]{} on {}. /help lists the commands.[/]", served.model, served.host))
        _converse(endpoint, max_tokens)


def _converse(endpoint: talk.Endpoint, max_tokens: int) -> None:
    history: list[talk.Message] = []
    ask = _asking()
    while True:
        try:
            line = ask().strip()
        except (EOFError, KeyboardInterrupt):
            output.print()
            return
        if line == "/quit":
            return
        if line == "/new":
            history.clear()
            continue
        if line == "/help" or _COMMAND.fullmatch(line):
            output.print(_HELP if line == "/help" else f"Unknown command {line}.\n{_HELP}")
            continue
        if not line:
            continue
        question = {"role": "user", "content": line}
        try:
            reply = _stream_reply(endpoint, [*history, question], max_tokens)
        except EndpointFailed as error:
            errors.print(marked("[red]{}[/] Type /new to start a new conversation.", error))
        except KeyboardInterrupt:
            output.print(" (stopped; this question is dropped)", style="dim")
        else:
            history += [question, {"role": "assistant", "content": reply}]


def _asking() -> Callable[[], str]:
    """A function that reads the next question: with line editing at a terminal, otherwise from standard input."""
    if not (sys.stdin.isatty() and output.is_terminal):
        return lambda: output.input("you> ")
    from prompt_toolkit import PromptSession  # here: only a conversation at a terminal needs it
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    keys = KeyBindings()

    @keys.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    prompt = PromptSession[str](key_bindings=keys)
    return lambda: prompt.prompt([("bold ansicyan", "you> ")], prompt_continuation="...> ", reserve_space_for_menu=0)


def _stream_reply(endpoint: talk.Endpoint, messages: list[talk.Message], max_tokens: int) -> str:
    """Print the reply to `messages` as it arrives, and return it."""
    reply, pieces, stream = talk.Reply(endpoint, messages, max_tokens), list[str](), Stream(output)
    try:
        for piece in reply:
            stream.write(piece)
            pieces.append(piece)
    finally:
        stream.end()
    if reply.cut:
        cut = marked("[yellow](cut off after {} tokens; --max-tokens allows more)[/]", max_tokens)
        errors.print(cut)
    if reply.measures and output.is_terminal:
        output.print(_measured(reply.measures), style="dim")
    return "".join(pieces)


def _measured(measures: talk.Measures) -> str:
    first = f"time to first token {measures.first_token_seconds * 1000:.0f} ms"
    return f"{first}, {measures.tokens_per_second:.1f} tokens/s, {measures.completion_tokens} tokens"
