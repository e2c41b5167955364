"""`zorac-deploy model`."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.table import Table

from zorac_deploy import runner
from zorac_deploy.cli import deploying, model_find
from zorac_deploy.cli.common import host_options, json_option, output, print_result, session, words
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
        session(words(host), variables) as opened,
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
        what = f"is stored ({result.seconds:.0f} s)" if result.changed else "is already stored: nothing to do"
        output.print(marked("[bold]{}:[/] {} {}.", opened.name, source, what))


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
    with session(words(host)) as opened:
        found = on_host.listed(opened.connection)
    if as_json:
        print_result({"models": [each.summary() for each in found]})
    elif not found:
        output.print(marked("[bold]{}:[/] no models. Pull one with: zorac-deploy model pull SOURCE", opened.name))
    else:
        output.print(_table(found))


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
    with Progress(output, quiet=as_json).shown("Read every file"), session(words(host)) as opened:
        found = on_host.verify(opened.connection, name)
    if as_json:
        print_result({"models": [asdict(each) for each in found]})
    for each in found if not as_json else ():
        files = "1 file" if each.files == 1 else f"{each.files} files"
        output.print(f"{each.folder}: {'good' if each.good else 'damaged'}, {files}")
    bad = [each for each in found if not each.good]
    if bad:
        what = "; ".join(f"{each.folder}: {', '.join((*each.damaged, *each.missing))}" for each in bad)
        raise Refused(
            f"damaged or missing on {opened.name}: {what}. Remove the model, then pull it again: "
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
    with session(words(host)) as opened, opened.connection.lock("zorac-deploy model remove"):
        removed = on_host.remove(opened.connection, name, force) if name else on_host.clean(opened.connection)
    if as_json:
        print_result({"host": opened.name, **asdict(removed)})
    else:
        what = ", ".join(removed.folders) or "nothing"
        gib = removed.bytes / 2**30
        output.print(marked("[bold]{}:[/] removed {}; {:.1f} GiB", opened.name, what, gib))


def _table(found: list[on_host.Model]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "size", "format", "generations", "source"):
        table.add_column(name, overflow="fold")
    for each in found:
        size = f"{each.bytes / 2**30:.1f} GiB"
        if each.partial:
            state = "downloading" if each.fetching else "interrupted"
            size = f"{each.bytes / 2**30:.1f} of {each.total / 2**30:.1f} GiB, {state}"
        users = ", ".join(map(str, each.generations)) or "none"
        table.add_row(each.folder, size, each.format, users, each.source)
    return table
