"""`zorac-deploy smoke`."""

from __future__ import annotations

import click

from zorac_deploy import chat
from zorac_deploy.cli.common import host_options, output, print_json, reached, session, words
from zorac_deploy.cli.terminal import marked
from zorac_deploy.errors import SmokeFailed


@click.command()
@host_options
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def smoke(as_json: bool, **host: object) -> None:
    """Prove that HOST serves a client; the exit code tells.

    It checks /health, /v1/models, that every other route refuses a request without the key, a streamed completion with
    its usage counts, and the message shape that Zorac sends after it has summarised a conversation.

    \b
    Example:
      zorac-deploy smoke tower --json
    """
    show = (lambda _: None) if as_json else _show
    with session(words(host)) as opened, reached(opened) as (found, endpoint):
        outcome = chat.smoke(endpoint, show)
    if as_json:
        print_json({"host": found.host, "model": found.model, **outcome.summary()})
    elif outcome.measures:
        measures = outcome.measures
        output.print(
            f"first token {measures.first_token_seconds * 1000:.0f} ms, {measures.tokens_per_second:.1f} tokens/s "
            f"over {measures.completion_tokens} tokens"
        )
    if not outcome.passed:
        raise SmokeFailed(f"failed on {found.host}: {', '.join(outcome.failed)}", outcome.failed)


def _show(check: chat.Check) -> None:
    mark = "[green]ok    [/]" if check.passed else "[red]failed[/]"
    output.print(marked(mark + " {:<14} {}", check.name, check.found), soft_wrap=True)
