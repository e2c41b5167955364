"""`zorac-deploy model`."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.table import Table

from zorac_deploy import runner
from zorac_deploy.cli import deploying, model_find
from zorac_deploy.cli.common import host_options, output, print_json, session, words
from zorac_deploy.cli.progress import Progress
from zorac_deploy.cli.terminal import marked
from zorac_deploy.errors import Refused
from zorac_deploy.models import host as on_host

_json = click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
_refresh = click.option("--refresh", is_flag=True, help="Ask which revision is the newest, and take that from now on.")


@click.group()
def model() -> None:
    """Bring models to a host, look what is there, prove it, and remove what nothing needs.

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
@_json
@click.option("-v", "--verbose", is_flag=True, help="Name every task.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the outcome.")
def pull(source: str, refresh: bool, as_json: bool, verbose: bool, quiet: bool, **host: object) -> None:
    """Bring the model SOURCE to HOST. Nothing serves it until `up` says so.

    SOURCE is hf://ORG/NAME, with @REVISION and /FILE.gguf if they matter; https://SERVER/FOLDER/ with a manifest.json;
    or a folder or GGUF file on this machine. The host fetches it by itself: whatever breaks or whoever leaves, the
    same words go on where it was.

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
        print_json({"host": opened.name, "changed": list(result.changed), "seconds": result.seconds})
    else:
        what = f"is there now ({result.seconds:.0f} s)" if result.changed else "was there already: nothing to do"
        output.print(marked("[bold]{}:[/] {} {}.", opened.name, source, what), soft_wrap=True)


@model.command("list")
@host_options
@_json
def listing(as_json: bool, **host: object) -> None:
    """List the models on HOST: their size and format, where they came from, and which generations need them.

    What is not whole was interrupted, or is being fetched: bring it again to go on, or remove it.

    \b
    Example:
      zorac-deploy model list tower --json
    """
    with session(words(host)) as opened:
        found = on_host.listed(opened.connection)
    if as_json:
        print_json([each.summary() for each in found])
    elif not found:
        output.print(marked("[bold]{}:[/] no models. Bring one with: zorac-deploy model pull SOURCE", opened.name))
    else:
        output.print(_table(found))


@model.command()
@host_options
@click.option("--model", "name", default="", metavar="NAME", help="Only this one.")
@_json
def verify(name: str, as_json: bool, **host: object) -> None:
    """Compare every file of the models on HOST with its SHA-256. The exit code is 27 if one is damaged.

    \b
    Example:
      zorac-deploy model verify tower --model Mistral-Small-24B-Instruct-2501-AWQ
    """
    with Progress(output, quiet=as_json).shown("Read every file"), session(words(host)) as opened:
        found = on_host.verify(opened.connection, name)
    if as_json:
        print_json([asdict(each) for each in found])
    for each in found if not as_json else ():
        files = "1 file" if each.files == 1 else f"{each.files} files"
        output.print(f"{each.folder}: {'good' if each.good else 'damaged'}, {files}")
    bad = [each for each in found if not each.good]
    if bad:
        what = "; ".join(f"{each.folder}: {', '.join((*each.damaged, *each.missing))}" for each in bad)
        raise Refused(
            f"damaged or missing on {opened.name}: {what}. Type: zorac-deploy model remove {bad[0].folder} --force, "
            "and bring it again with zorac-deploy model pull.",
            "model-damaged",
        )


@model.command()
@click.argument("name", required=False)
@host_options
@click.option("--partial", is_flag=True, help="Remove what interrupted fetches left, and end those under way.")
@click.option("--force", is_flag=True, help="Also what a generation needs.")
@_json
def remove(name: str | None, partial: bool, force: bool, as_json: bool, **host: object) -> None:
    """Remove the model NAME from HOST; with --partial, all that are not whole. What a generation needs stays.

    \b
    Examples:
      zorac-deploy model remove Qwen3-8B-7150577161ab tower
      zorac-deploy model remove --partial tower
    """
    if partial:  # one word is the host
        name, host["host_name"] = None, name or host["host_name"]
    elif name is None:
        raise click.UsageError("Missing argument 'NAME'. See the names with: zorac-deploy model list")
    with session(words(host)) as opened, opened.connection.lock("zorac-deploy model remove"):
        removed = on_host.remove(opened.connection, name, force) if name else on_host.clean(opened.connection)
    if as_json:
        print_json({"host": opened.name, **asdict(removed)})
    else:
        what = ", ".join(removed.folders) or "nothing"
        gib = removed.bytes / 2**30
        output.print(marked("[bold]{}:[/] removed {}; {:.1f} GiB", opened.name, what, gib), soft_wrap=True)


def _table(found: list[on_host.Model]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("model", "size", "format", "generations", "source"):
        table.add_column(name, overflow="fold")
    for each in found:
        size = f"{each.bytes / 2**30:.1f} GiB"
        if each.partial:
            state = "being fetched" if each.fetching else "interrupted"
            size = f"{each.bytes / 2**30:.1f} of {each.total / 2**30:.1f} GiB, {state}"
        users = ", ".join(map(str, each.generations)) or "none"
        table.add_row(each.folder, size, each.format, users, each.source)
    return table
