"""`zorac-deploy smoke`."""

from __future__ import annotations

import click

from zorac_deploy import chat
from zorac_deploy.cli.common import collect_options, host_options, json_option, output, print_result, reached, session
from zorac_deploy.cli.terminal import marked
from zorac_deploy.errors import SmokeFailed


@click.command()
@host_options
@json_option()
def smoke(as_json: bool, **host: object) -> None:
    """Check that HOST answers, for scripts.

    The exit code is 0 if all checks pass: /health; /v1/models; a streamed completion with usage counts; the messages
    that Zorac sends after it has summarised a conversation; and every other route refuses a request without the key.

    \b
    Example:
      zorac-deploy smoke tower --json
    """
    show = (lambda _: None) if as_json else _show
    with session(collect_options(host)) as opened, reached(opened) as (served, endpoint):
        outcome = chat.smoke(endpoint, show)
    if as_json:
        print_result({"host": served.host, "model": served.model, **outcome.summary()})
    elif outcome.measures:
        measures = outcome.measures
        output.print(
            f"time to first token {measures.first_token_seconds * 1000:.0f} ms, "
            f"{measures.tokens_per_second:.1f} tokens/s over {measures.completion_tokens} tokens"
        )
    if not outcome.passed:
        count = f"{len(outcome.failed)} of {len(outcome.checks)} smoke checks failed"
        failed = f"{count} on {served.host}: {', '.join(outcome.failed)}"
        raise SmokeFailed(f"{failed}; {served.not_serving}".removesuffix("; "), outcome.failed)


def _show(check: chat.Check) -> None:
    mark = "[green]ok    [/]" if check.passed else "[red]failed[/]"
    output.print(marked(mark + " {:<14} {}", check.name, check.found))
