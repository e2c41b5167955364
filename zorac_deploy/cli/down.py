"""`zorac-deploy down`."""

import click

from zorac_deploy import runner
from zorac_deploy.cli.common import collect_options, host_options, json_option, output, print_result, session
from zorac_deploy.cli.deploying import log_file
from zorac_deploy.cli.progress import Progress
from zorac_deploy.cli.terminal import clean, marked


@click.command()
@host_options
@click.option("--purge", is_flag=True, help="Also remove the models.")
@click.option("--driver", is_flag=True, help="Also remove the driver, if `up` installed it.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option()
@click.option("-v", "--verbose", is_flag=True, help="Print every task.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the result.")
def down(purge: bool, driver: bool, yes: bool, as_json: bool, verbose: bool, quiet: bool, **host: object) -> None:
    """Remove the deployment from HOST.

    The models stay unless --purge is given, the driver unless --driver is given.

    \b
    Example:
      zorac-deploy down tower --purge
    """
    progress = Progress(output, verbose, quiet or as_json)
    with session(collect_options(host)) as opened:
        if not yes:
            parts = ["the engine", "its settings", *["ALL MODELS"] * purge, *["the driver"] * driver]
            click.confirm(clean(f"Remove {', '.join(parts[:-1])} and {parts[-1]} from {opened.name}?"), abort=True)
        with progress.shown("Remove"), opened.connection.lock("zorac-deploy down"):
            result = runner.run(
                "down",
                opened.inventory.sources,
                opened.connection,
                log_file("down", opened),
                variables={"model_weights_purged": purge, "nvidia_driver_removed": driver},
                on_step=progress.step,
            )
            # Ansible's directory in the login user's home; removed only if it is empty.
            opened.connection.run("sh", "-c", "rmdir ~/.ansible/tmp ~/.ansible", root=False)
    if as_json:
        print_result({"host": opened.name, "changed": list(result.changed), "seconds": result.seconds})
    else:
        done = "removed" if result.changed else "nothing to remove"
        output.print(marked("[bold]{}:[/] {}.", opened.name, done))
