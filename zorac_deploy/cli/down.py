"""`zorac-deploy down`."""

import click

from zorac_deploy import runner
from zorac_deploy.cli.common import host_options, output, print_json, session, words
from zorac_deploy.cli.progress import Progress
from zorac_deploy.cli.up import log_file


@click.command()
@host_options
@click.option("--purge", is_flag=True, help="Remove the models too.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Name every task.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but the outcome.")
def down(purge: bool, yes: bool, as_json: bool, verbose: bool, quiet: bool, **host: object) -> None:
    """Remove from HOST what `up` brought there. The models stay unless --purge is given.

    \b
    Example:
      zorac-deploy down tower --purge
    """
    progress = Progress(output, verbose, quiet or as_json)
    with session(words(host)) as opened:
        if not yes:
            models = "the engine, its settings and ALL MODELS" if purge else "the engine and its settings"
            click.confirm(f"Remove {models} from {opened.name}?", abort=True)
        with progress.shown("Remove"), opened.connection.lock("zorac-deploy down"):
            result = runner.run(
                "down",
                opened.inventory.sources,
                opened.connection,
                log_file("down", opened),
                variables={"model_weights_purged": purge},
                on_step=progress.step,
            )
            # Ansible's own folder in the home of the user it logs in as; only if it is empty.
            opened.connection.run("sh", "-c", "rmdir ~/.ansible/tmp ~/.ansible", root=False)
    if as_json:
        print_json({"host": opened.name, "changed": list(result.changed), "seconds": result.seconds})
    else:
        output.print(f"[bold]{opened.name}:[/] " + ("removed." if result.changed else "there was nothing to remove."))
