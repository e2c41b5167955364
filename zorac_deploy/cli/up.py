"""`zorac-deploy up`."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import platformdirs
from rich.markup import escape

from zorac_deploy import chat, deployment, resume, runner
from zorac_deploy.cli.common import Session, host_options, output, print_json, reached, session, words
from zorac_deploy.cli.progress import Progress
from zorac_deploy.errors import Refused, SmokeFailed

_LOGS_KEPT = 50


@click.command()
@host_options
@click.option("--model", type=click.Path(path_type=Path), help="The model's folder on this machine.")
@click.option("--check", is_flag=True, help="Show what would change, with the files' differences, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Name every task.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the outcome.")
def up(model: Path | None, check: bool, as_json: bool, verbose: bool, quiet: bool, **host: object) -> None:
    """Bring HOST to its profile and prove it with a real reply.

    It looks first and refuses before it changes anything. A second run changes nothing, and says so.

    \b
    Examples:
      zorac-deploy up --host me@192.168.1.50 --profile headless --model ~/models/Mistral-Small-24B-AWQ
      zorac-deploy up tower --inventory inventory.yml
      zorac-deploy up tower --check
    """
    quiet = quiet or as_json
    progress = Progress(output, verbose, quiet)
    variables = {"model_weights_source": str(model.expanduser().absolute())} if model else {}
    with progress.shown("Connect to the host"), session(words(host), variables) as opened:
        if check:
            _show_changes(opened, progress, as_json)
            return
        with opened.connection.lock("zorac-deploy up"), _resumed(opened):
            result = runner.run(
                "up", opened.inventory.sources, opened.connection, log_file("up", opened), on_step=progress.step
            )
        with reached(opened) as (found, endpoint):
            smoke = chat.smoke(endpoint, lambda done: progress.step(runner.Step("smoke", done.name, "ok")))
    outcome = {"host": opened.name, "changed": list(result.changed), "seconds": result.seconds, "log": str(result.log)}
    if as_json:
        print_json({**outcome, "deployment": found.summary(), "smoke": smoke.summary()})
    else:
        _report(result, found, smoke)
        output.print(f"\n  Talk to it: zorac-deploy chat {words(host).again()}", soft_wrap=True)
    if not smoke.passed:
        raise SmokeFailed(_failures(smoke), smoke.failed)


@contextlib.contextmanager
def _resumed(opened: Session) -> Iterator[None]:
    """See to it that a run on this very machine goes on after the reboot that it asks for."""
    try:
        yield
    except Refused as refused:
        if not opened.connection.target.local or refused.refusal not in ("reboot-needed", "secure-boot-enrolment"):
            raise
        if opened.connection.sudo_password is not None:
            raise  # nobody will be there to type it
        resume.schedule(opened.connection, [sys.executable, "-m", "zorac_deploy", *sys.argv[1:]])
        raise Refused(
            f"{refused} After the reboot it goes on by itself; see how with: sudo journalctl -ft zorac-deploy",
            refused.refusal,
        ) from None


def log_file(verb: str, opened: Session) -> Path:
    """A new file for the log of `verb`, beside those of earlier runs, of which the oldest are dropped."""
    folder = platformdirs.user_log_path("zorac-deploy")
    for old in sorted(folder.glob("*.log"))[: -_LOGS_KEPT + 1]:
        old.unlink(missing_ok=True)
    return folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{verb}-{opened.name}.log"


def _show_changes(opened: Session, progress: Progress, as_json: bool) -> None:
    diffs: list[str] = []

    def on_step(step: runner.Step) -> None:
        progress.step(step)
        if step.diff:
            diffs.append(step.diff)

    log = log_file("check", opened)
    result = runner.run("up", opened.inventory.sources, opened.connection, log, check=True, on_step=on_step)
    if as_json:
        print_json({"host": opened.name, "would_change": list(result.changed), "diffs": diffs, "log": str(log)})
        return
    for diff in diffs:
        output.print(escape(diff), style="dim", soft_wrap=True)
    count = len(result.changed)
    would = f"{count} task{'s' * (count != 1)} would change something" if count else "nothing would change"
    output.print(f"\n[bold]{opened.name}: {would}.[/] Nothing was changed. Log: {escape(str(log))}", soft_wrap=True)


def _report(result: runner.Result, found: deployment.Deployment, smoke: chat.Smoke) -> None:
    changes = f"{len(result.changed)} changes" if result.changed else "nothing to change"
    rows = {
        "host": f"{found.host} ({changes}, {result.seconds:.0f} s)",
        "endpoint": f"http://{found.listen}:{found.port}/v1 on the host",
        "model": f"{found.model}, context {found.max_model_len or 'of the model'} tokens",
        "profile": f"{found.profile}, engine {found.engine}",
    }
    if smoke.measures:
        rows["first token"] = f"{smoke.measures.first_token_seconds * 1000:.0f} ms"
        rows["speed"] = f"{smoke.measures.tokens_per_second:.1f} tokens/s"
    rows["API key"] = f"sudo cat {deployment.KEY_FILE} on the host"
    rows["log"] = str(result.log)
    output.print()
    for name, value in rows.items():
        output.print(f"  [bold]{name:<12}[/] {escape(value)}", soft_wrap=True)


def _failures(smoke: chat.Smoke) -> str:
    lines = [f"{check.name}: {check.found}" for check in smoke.checks if not check.passed]
    return "it is deployed, but it does not answer as it must:\n  " + "\n  ".join(lines)
