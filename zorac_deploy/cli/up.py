"""`zorac-deploy up`."""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from zorac_deploy import bundle as bundles
from zorac_deploy import deployment, resume
from zorac_deploy.cli import deploying, model_find, several
from zorac_deploy.cli.common import (
    Session,
    collect_options,
    context_option,
    json_option,
    model_option,
    output,
    print_result,
    replace_unit_option,
    session,
    sessions,
    several_hosts_options,
)
from zorac_deploy.cli.progress import Progress
from zorac_deploy.errors import Refused, exit_code_of


@click.command()
@several_hosts_options
@model_option
@click.option("--bundle", type=click.Path(path_type=Path), help="Install from this bundle, without a network.")
@click.option(
    "--variant", is_flag=True, help="If the model does not fit, deploy its first quantized variant that fits."
)
@context_option
@replace_unit_option
@click.option("--deep", is_flag=True, help="Also compare every byte of the engine and the model.")
@click.option("--full", is_flag=True, help="Run every role, even if nothing differs.")
@click.option("--check", is_flag=True, help="Show what would change, with diffs, and change nothing.")
@json_option()
@click.option("-v", "--verbose", is_flag=True, help="Print every task.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the result.")
def up(
    host_names: tuple[str, ...],
    model: str | None,
    bundle: Path | None,
    variant: bool,
    context: str | int | None,
    replace_unit: bool,
    deep: bool,
    full: bool,
    check: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
    **host: object,
) -> None:
    """Deploy HOST and verify it with a real reply.

    The host is compared with the inventory first. If nothing differs, nothing is changed. If something differs, it is
    named and corrected. All roles check the host before the first change, and refuse what cannot work. If the new
    generation fails its verification, the host rolls back to the previous one.

    Several hosts are compared at the same time; those that differ are deployed one after another. If one fails, the
    others are deployed nevertheless. The exit code is that of the first host that failed.

    \b
    Examples:
      zorac-deploy up --host me@192.168.1.50 --profile headless --model ~/models/Mistral-Small-24B-AWQ
      zorac-deploy up tower --inventory inventory.yml
      zorac-deploy up tower --check
      zorac-deploy up tower rack attic
      zorac-deploy up tower --bundle /media/usb/mistral
      zorac-deploy up tower --model hf://mistralai/Mistral-Small-24B-Instruct-2501 --variant
    """
    if model and bundle:
        raise click.UsageError("--bundle contains a model. Remove --model.")
    names = tuple(dict.fromkeys(host_names))
    named = replace(collect_options(host), name=names[0] if names else None)
    if check and len(names) > 1:
        raise click.UsageError(f"--check takes one HOST, not {len(names)}.")
    progress = Progress(output, verbose, quiet or as_json)
    variables = deploying.variables(model, context, replace_unit)
    if bundle:
        with progress.shown("Check the bundle"):
            variables |= bundles.unpack(bundle, progress.doing)
    if check:
        with progress.shown("Connect to the host"), session(named, variables) as opened:
            _show_changes(opened, progress, as_json, deep)
        return

    def deploy(opened: Session, facts: dict[str, Any]) -> deploying.Deployed:
        try:
            return _deployed(opened, progress, facts, full, deep)
        except Refused as refused:
            source = model_find.offered(refused, facts, variant, ask=not (as_json or quiet))
        variant_options = replace(named, name=opened.name) if names else named
        with session(variant_options, variables | {"model_weights_source": source}) as other:
            return _deployed(other, progress, facts, full, deep)

    with sessions(named, names or (None,), variables) as hosts:
        if len(hosts) > 1:
            outcomes = several.bring_up(hosts, progress, deploy, full, deep)
            if as_json:
                print_result({"hosts": [outcome.summary() for outcome in outcomes]})
            else:
                several.report(outcomes)
            sys.exit(next((exit_code_of(outcome.fault) for outcome in outcomes if outcome.fault), 0))
        facts = dict[str, Any]()
        done = deploy(hosts[0], facts)
    if as_json:
        print_result(done.summary())
    else:
        _report(done)
        deploying.notes(facts)
        output.print(f"\n  Chat with it: zorac-deploy chat {named.command_line()}")
    done.require()


def _deployed(opened: Session, progress: Progress, facts: dict[str, Any], full: bool, deep: bool) -> deploying.Deployed:
    with progress.shown("Connect to the host"):
        opened.connection.check()  # reports a wrong password at once; the lock would wait for another one
        with opened.connection.lock("zorac-deploy up"), _resumed(opened):
            return deploying.converge(opened, progress, facts, full, deep)


@contextlib.contextmanager
def _resumed(opened: Session) -> Iterator[None]:
    """Schedule a run on this machine to continue after the reboot that it asks for."""
    try:
        yield
    except Refused as refused:
        if not opened.connection.target.local or refused.refusal not in ("reboot-needed", "secure-boot-enrolment"):
            raise
        if opened.connection.sudo_password is not None:
            raise  # without a user, nobody would re-run it
        resume.schedule(opened.connection, [sys.executable, "-m", "zorac_deploy", *sys.argv[1:]])
        raise Refused(
            f"{refused} After the reboot the run continues by itself. Follow it with: sudo journalctl -ft zorac-deploy",
            refused.refusal,
        ) from None


def _show_changes(opened: Session, progress: Progress, as_json: bool, deep: bool) -> None:
    preview = deploying.would_change(opened, progress, {}, deep)
    if as_json:
        print_result(preview.summary(opened.name))
    else:
        deploying.show(preview)
        output.print()
        deploying.count(opened, preview)


def _report(done: deploying.Deployed) -> None:
    served, result = done.served, done.result
    context = f"{served.max_model_len} tokens" if served.max_model_len else "of the model"
    rows = {
        "host": f"{served.host} ({result.summary()}, {result.seconds:.1f} s)",
        "endpoint": f"{served.url}/v1 on the host",
        "model": f"{served.model}, context {context}",
        "profile": f"{served.profile}, engine {served.engine}, generation {served.generation}",
    }
    if "kv_tokens" in served.logged:
        predicted = (served.plan.get("predicted") or {}).get("kv_tokens")
        comparison = f" ({predicted:,} planned)" if predicted else ""
        rows["KV cache"] = f"{served.logged['kv_tokens']:,} tokens{comparison}"
    if served.logged.get("kernels"):
        rows["kernel"] = ", ".join(served.logged["kernels"])
    if done.reply:
        rows["reply"] = f"after {done.reply.seconds:.1f} s; requests without the key are refused"
    if done.smoke and done.smoke.measures:
        rows["TTFT"] = f"{done.smoke.measures.first_token_seconds * 1000:.0f} ms to the first token"
        rows["speed"] = f"{done.smoke.measures.tokens_per_second:.1f} tokens/s"
    rows["API key"] = f"sudo cat {deployment.KEY_FILE} on the host"
    if result.log:
        rows["log"] = str(result.log)
    deploying.report(rows)
    if done.missed:
        output.print("\nnote: the host reported no differences, but roles changed something.")
