"""`zorac-deploy model`."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.table import Table

from zorac_deploy import runner
from zorac_deploy.cli import deploying, model_find
from zorac_deploy.cli.common import collect_options, host_options, json_option, output, print_result, session
from zorac_deploy.cli.progress import Progress
from zorac_deploy.cli.terminal import marked
from zorac_deploy.errors import Refused
from zorac_deploy.models import host as on_host

_refresh = click.option("--refresh", is_flag=True, help="Look up the newest revision, and use it from now on.")


@click.group()
def model() -> None:
    """Pull, list, verify and remove models.

    \b
    Examples:
      zorac-deploy model pull hf://stelterlab/Mistral-Small-24B-Instruct-2501-AWQ tower
      zorac-deploy model list tower
    """


model.add_command(model_find.find)


@model.command()
@click.argument("source")
@host_options
@_refresh
@json_option()
@click.option("-v", "--verbose", is_flag=True, help="Print every task.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the result.")
def pull(source: str, refresh: bool, as_json: bool, verbose: bool, quiet: bool, **host: object) -> None:
    """Copy or download the model SOURCE to HOST.

    It only stores the model: `up` deploys it. SOURCE is hf://ORG/NAME[@REVISION][/FILE.gguf]; https://SERVER/FOLDER/
    with a manifest.json; or a directory or GGUF file on this machine. The host downloads by itself. After an
    interruption, re-run the command to resume.

    \b
    Examples:
      zorac-deploy model pull hf://stelterlab/Mistral-Small-24B-Instruct-2501-AWQ tower
      zorac-deploy model pull hf://Qwen/Qwen3-8B-GGUF/Qwen3-8B-Q4_K_M.gguf tower
    """
    progress = Progress(output, verbose, quiet or as_json)
    variables = deploying.variables(source, None) | {"model_weights_refreshed": refresh}
    with (
        progress.shown("Connect to the host"),
        session(collect_options(host), variables) as opened,
        opened.connection.lock("zorac-deploy model pull"),
    ):
        result = runner.run(
            "pull",
            opened.inventory.sources,
            opened.connection,
            deploying.log_file("pull", opened),
            on_step=progress.step,
        )
    if as_json:
        print_result({"host": opened.name, "changed": list(result.changed), "seconds": result.seconds})
    else:
        state = f"is stored ({result.seconds:.0f} s)" if result.changed else "is already stored: nothing to do"
        output.print(marked("[bold]{}:[/] {} {}.", opened.name, source, state))


@model.command("list")
@host_options
@json_option()
def listing(as_json: bool, **host: object) -> None:
    """List the models on HOST.

    Each has its size, format and source, and the generations that use it. A partial model is being downloaded, or its
    download was interrupted: pull it again to resume, or remove it.

    \b
    Example:
      zorac-deploy model list tower --json
    """
    with session(collect_options(host)) as opened:
        stored = on_host.listed(opened.connection)
    if as_json:
        print_result({"models": [entry.summary() for entry in stored]})
    elif not stored:
        output.print(marked("[bold]{}:[/] no models. Pull one with: zorac-deploy model pull SOURCE", opened.name))
    else:
        output.print(_table(stored))


@model.command()
@host_options
@click.option("--model", "name", default="", metavar="NAME", help="Verify only this model.")
@json_option()
def verify(name: str, as_json: bool, **host: object) -> None:
    """Verify the SHA-256 of every model file.

    The exit code is 27 if a file is damaged or missing.

    \b
    Example:
      zorac-deploy model verify tower --model Mistral-Small-24B-Instruct-2501-AWQ
    """
    with Progress(output, quiet=as_json).shown("Read every file"), session(collect_options(host)) as opened:
        results = on_host.verify(opened.connection, name)
    if as_json:
        print_result({"models": [asdict(result) for result in results]})
    for result in results if not as_json else ():
        files = "1 file" if result.files == 1 else f"{result.files} files"
        output.print(f"{result.folder}: {'good' if result.good else 'damaged'}, {files}")
    bad = [result for result in results if not result.good]
    if bad:
        damage = "; ".join(f"{result.folder}: {', '.join((*result.damaged, *result.missing))}" for result in bad)
        raise Refused(
            f"damaged or missing on {opened.name}: {damage}. Remove the model, then pull it again: "
            f"zorac-deploy model remove {bad[0].folder} --force; zorac-deploy model pull SOURCE",
            "model-damaged",
        )


@model.command()
@click.argument("name", required=False)
@host_options
@click.option("--partial", is_flag=True, help="Remove all partial models, and stop downloads in progress.")
@click.option("--force", is_flag=True, help="Also remove a model that a generation uses.")
@json_option()
def remove(name: str | None, partial: bool, force: bool, as_json: bool, **host: object) -> None:
    """Remove the model NAME from HOST.

    With --partial, remove all partial models instead. A model that a generation uses stays unless --force is given.

    \b
    Examples:
      zorac-deploy model remove Qwen3-8B-7150577161ab tower
      zorac-deploy model remove --partial tower
    """
    if partial:  # a single argument is the host
        name, host["host_name"] = None, name or host["host_name"]
    elif name is None:
        raise click.UsageError("Missing argument 'NAME'. List the names with: zorac-deploy model list")
    with session(collect_options(host)) as opened, opened.connection.lock("zorac-deploy model remove"):
        removed = on_host.remove(opened.connection, name, force) if name else on_host.clean(opened.connection)
    if as_json:
        print_result({"host": opened.name, **asdict(removed)})
    else:
        names = ", ".join(removed.folders) or "nothing"
        gib = removed.bytes / 2**30
        output.print(marked("[bold]{}:[/] removed {}; {:.1f} GiB", opened.name, names, gib))


def _table(stored: list[on_host.Model]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "size", "format", "generations", "source"):
        table.add_column(name, overflow="fold")
    for entry in stored:
        size = f"{entry.bytes / 2**30:.1f} GiB"
        if entry.partial:
            state = "downloading" if entry.fetching else "interrupted"
            size = f"{entry.bytes / 2**30:.1f} of {entry.total / 2**30:.1f} GiB, {state}"
        users = ", ".join(map(str, entry.generations)) or "none"
        table.add_row(entry.folder, size, entry.format, users, entry.source)
    return table
