"""`zorac-deploy switch`."""

from __future__ import annotations

import click

from zorac_deploy import client, deployment, host_program, inventory, scratch
from zorac_deploy.cli import completing, deploying
from zorac_deploy.cli.common import (
    Session,
    collect_options,
    context_option,
    host_options,
    json_option,
    output,
    print_result,
    session,
)
from zorac_deploy.cli.progress import Progress
from zorac_deploy.cli.terminal import clean, marked


@click.command()
@host_options
@click.argument("profile_name", metavar="PROFILE", required=False, shell_complete=completing.profiles)
@context_option
@click.option("--check", is_flag=True, help="Show what would change, and change nothing.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask, and do not show the changes first.")
@json_option("Print the result as JSON, without asking.")
@click.option("-v", "--verbose", is_flag=True, help="Print every task.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the result.")
def switch(
    profile_name: str | None,
    context: str | int | None,
    check: bool,
    yes: bool,
    as_json: bool,
    verbose: bool,
    quiet: bool,
    **host: object,
) -> None:
    """Switch HOST to another PROFILE.

    It shows what changes, asks, and lets the host activate the new generation. If the activation fails, the host rolls
    back. An interruption of this command does not stop the host. The inventory is not changed: the next `up` deploys
    the profile that it names.

    If Zorac on this machine uses HOST, its settings (~/.zorac/config.json) get the profile's limits.

    \b
    Examples:
      zorac-deploy switch display
      zorac-deploy switch tower headless --check
    """
    if profile_name is None:  # a single argument is the profile of the only host
        profile_name, host["host_name"] = host["host_name"], None  # type: ignore[assignment]
    if profile_name is None:
        raise click.UsageError("Missing argument 'PROFILE'.")
    progress = Progress(output, verbose, quiet or as_json)
    with (
        session(collect_options(host), deploying.variables(None, context)) as opened,
        scratch.folder() as folder,
    ):
        host_program.require_not_newer(opened.connection)
        before = deployment.read(opened.connection)
        source = folder / "inventory.yml"
        source.write_text(inventory.switched(opened.inventory, opened.name, profile_name), encoding="utf-8")
        target = Session(inventory.Inventory((source,), opened.inventory.targets), opened.connection)
        if (check or not (yes or as_json)) and not _agreed(
            target, before.profile, profile_name, check, as_json, progress
        ):
            return
        with progress.shown("Switch"):
            with opened.connection.lock(f"zorac-deploy switch {profile_name}"):
                result = deploying.deploy(target, progress, f"switch-{profile_name}")
            done = deploying.proved(target, progress, result)
        fitting = client.settings(opened.connection, done.served, deployment.api_key(opened.connection))
        seconds = deployment.generation(opened.connection, done.served.generation).seconds if result.changed else {}
    zorac = client.write(fitting)
    if as_json:
        shown = {name: value for name, value in fitting.items() if name != "VLLM_API_KEY"}
        print_result({**done.summary(), "from": before.summary(), "downtime": seconds, "client": shown, "zorac": zorac})
    else:
        _report(before, done, seconds, fitting, zorac)
    done.require()


def _agreed(target: Session, current: str, profile: str, check: bool, as_json: bool, progress: Progress) -> bool:
    """Print what would change, and ask whether to deploy it."""
    with progress.shown("Check what would change"):
        changes = deploying.changes(target, progress)
    if as_json:
        print_result(changes.summary(target.name))
        return False
    if not changes.tasks:
        output.print(marked("[bold]{}[/] already serves {}: nothing to do.", target.name, profile))
        return False
    deploying.show(changes)
    output.print(
        marked(
            "\n[bold]{}[/]: {} → {}, {} tasks would change something", target.name, current, profile, len(changes.tasks)
        )
    )
    if check:
        output.print("Nothing was changed.")
        return False
    return click.confirm(
        clean(f"Switch {target.name} to {profile}? The endpoint is down while the engine starts."), abort=True
    )


def _report(
    before: deployment.Deployment,
    done: deploying.Deployed,
    seconds: deployment.Seconds,
    fitting: dict[str, str],
    zorac: str,
) -> None:
    served = done.served
    if served.generation == before.generation:
        output.print(marked("[bold]{}[/] already serves {}: nothing to do.", served.host, served.profile))
        return
    rows = {
        "host": f"{served.host}, generation {before.generation} → {served.generation} ({done.result.seconds:.0f} s)",
        "profile": f"{before.profile} → {served.profile}",
        "context": f"{before.max_model_len} → {served.max_model_len} tokens",
        **deploying.downtime(seconds),
        "Zorac": ", ".join(f"{name} {value}" for name, value in fitting.items() if name.startswith("MAX_")),
        "": zorac,
    }
    deploying.report(rows)
