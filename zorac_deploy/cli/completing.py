"""Shell completion of hosts, profiles and recipes. What cannot be read completes to nothing."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from zorac_deploy import inventory
from zorac_deploy.errors import ZoracDeployError


def hosts(context: click.Context, _: click.Parameter, begin: str) -> list[CompletionItem]:
    """The hosts of the inventory that begin with `begin`; for `switch` also the profiles."""
    listing = _inventory(context)
    names = sorted(listing.targets)
    if any(param.name == "profile_name" for param in context.command.params):
        names += listing.profiles or inventory.shipped_profiles()
    chosen = context.params.get("host_names") or ()
    return _beginning(begin, [name for name in names if name not in chosen])


def profiles(context: click.Context, _: click.Parameter, begin: str) -> list[CompletionItem]:
    """The profiles that begin with `begin`, including those of the inventory."""
    return _beginning(begin, [*(_inventory(context).profiles or inventory.shipped_profiles())])


def shipped_profiles(_: click.Context, __: click.Parameter, begin: str) -> list[CompletionItem]:
    """Our own profiles that begin with `begin`: --profile is for a host without an inventory."""
    return _beginning(begin, inventory.shipped_profiles())


def recipes(_: click.Context, __: click.Parameter, begin: str) -> list[CompletionItem]:
    """The shipped recipes, or a file."""
    from zorac_deploy.quantize import recipe

    return _beginning(begin, [*recipe.shipped()]) or [CompletionItem(begin, type="file")]


def _beginning(begin: str, names: list[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(begin)]


def _inventory(context: click.Context) -> inventory.Inventory:
    """The inventory that the command line so far, or the default, names."""
    from zorac_deploy.cli import common

    options = common.HostOptions(None, tuple(context.params.get("sources") or ()), None, None, False)
    with contextlib.suppress(ZoracDeployError, OSError), tempfile.TemporaryDirectory() as scratch:
        return inventory.read(common.sources_of(options, Path(scratch)))
    return inventory.Inventory(())
