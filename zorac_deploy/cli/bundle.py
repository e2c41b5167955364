"""`zorac-deploy bundle`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from zorac_deploy import bundle as bundles
from zorac_deploy.cli.common import json_option, output, print_result
from zorac_deploy.cli.deploying import report
from zorac_deploy.cli.progress import Progress
from zorac_deploy.cli.terminal import marked

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


class _Size(click.ParamType[int]):
    """A number of bytes, as in 60M or 3.9G."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG])", str(value), re.IGNORECASE)
        size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
        if size < 2**20:
            self.fail(f"{value!r} is not a size. Give at least 1M, such as 60M or 3.9G.", param, ctx)
        return size


@click.group()
def bundle() -> None:
    """Create bundles for hosts without a network.

    A bundle is a directory with the engine, the model and the packages, split into parts.

    \b
    Example:
      zorac-deploy bundle create --engine cuda-0.26.0 --system debian12 --model ~/models/M-AWQ --output /media/usb/M
      zorac-deploy bundle inspect /media/usb/M --verify
      zorac-deploy up tower --bundle /media/usb/M
    """


@bundle.command("create")
@click.option("--engine", required=True, help="Engine of the hosts' profile, as in cuda-0.26.0.")
@click.option("--system", type=click.Choice(list(bundles.SYSTEMS)), required=True, help="Distribution of the hosts.")
@click.option("--model", metavar="SOURCE", required=True, help="Model, as for `up --model`.")
@click.option("--output", "folder", type=click.Path(path_type=Path), required=True, help="Directory to create.")
@click.option(
    "--part-size",
    type=_Size(),
    default="3.9G",
    show_default=True,
    help="Largest file that the disk or the upload accepts.",
)
@click.option(
    "--packages/--no-packages",
    default=True,
    show_default=True,
    help="Include the engine's Debian packages, if this machine runs the same distribution.",
)
@click.option(
    "--package", "extra_packages", metavar="NAME", multiple=True, help="Include this Debian package too; repeatable."
)
@json_option("Print the contents as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print only the result.")
def create(
    engine: str,
    system: str,
    model: str,
    folder: Path,
    part_size: int,
    packages: bool,
    extra_packages: tuple[str, ...],
    as_json: bool,
    quiet: bool,
) -> None:
    """Download a deployment's files into a bundle.

    pip downloads the wheels and apt the packages, each with this machine's settings. The directory appears when it is
    complete. After an interruption, re-run the command to resume. To include a driver, name its packages and the
    headers of the hosts' kernel with --package.

    \b
    Examples:
      zorac-deploy bundle create --engine cpu-0.32.0 --system debian12 --model ~/models/M --output m --part-size 60M
      zorac-deploy bundle create --engine cuda-0.26.0 --system debian12 --model ~/models/M --output m \\
        --package nvidia-kernel-open-dkms --package nvidia-driver-cuda --package linux-headers-amd64
    """
    progress = Progress(output, quiet=quiet or as_json)
    wish = bundles.Wish(engine, system, model, packages, extra_packages)
    with progress.shown("Check the request"):
        made = bundles.create(wish, folder, part_size, progress.doing)
    _print(folder, made, as_json)


@bundle.command("inspect")
@click.argument("folder", metavar="BUNDLE", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Read every part and compare its SHA-256.")
@json_option("Print the contents as JSON, with every file.")
def inspect(folder: Path, verify: bool, as_json: bool) -> None:
    """Show what is in BUNDLE.

    With --verify, read every part and compare its SHA-256. The SHA-256 that is printed covers the whole bundle: compare
    it with the one that `bundle create` printed.

    \b
    Example:
      zorac-deploy bundle inspect /media/usb/M --verify
    """
    contents = bundles.read(folder)
    if verify:
        progress = Progress(output, quiet=as_json)
        with progress.shown("Verify the parts"):
            bundles.verify(folder, contents.parts, progress.doing)
    _print(folder, contents, as_json)
    if verify and not as_json:
        output.print("\n  all parts are present and intact")


def _print(folder: Path, contents: bundles.About, as_json: bool) -> None:
    digest = bundles.digest(folder)
    if as_json:
        print_result({"sha256": digest, **contents.model_dump()})
        return
    count = {top: sum(file.path.startswith(f"{top}/") for file in contents.files) for top in ("wheels", "packages")}
    report(
        {
            "bundle": f"{folder}, {contents.bytes / 2**30:.2f} GiB in {len(contents.parts)} parts",
            "sha256": digest,
            "for": f"{contents.system} with Python {contents.python}, x86-64",
            "engine": f"{contents.engine.lock}, {count['wheels']} wheels",
            "model": f"{contents.model.name} ({contents.model.format}) from {contents.model.source}",
            "packages": f"{len(contents.packages)} of {contents.system}" if contents.packages else "none",
        }
    )
    for sentence in contents.absent:
        output.print(marked("  [yellow]not included[/] {}", sentence))
