"""`zorac-deploy support-bundle`."""

from __future__ import annotations

import time
from pathlib import Path

import click

from zorac_deploy import deployment
from zorac_deploy.cli.common import collect_options, host_options, output, session
from zorac_deploy.cli.terminal import marked
from zorac_deploy.doctor import bundle, rules
from zorac_deploy.doctor import host as hosts
from zorac_deploy.errors import ZoracDeployError


@click.command("support-bundle")
@host_options
@click.option("-o", "--output", "path", type=click.Path(path_type=Path), help="The file. Default: named for the time.")
def support_bundle(path: Path | None, **host: object) -> None:
    """Collect what a helper needs from HOST in one archive, without secrets.

    It holds what `doctor` found and looked at, and the logs of the engine and the kernel. Keys, tokens, prompts,
    addresses and the names of hosts and users are taken out. Read it before you give it away. HOST is not changed.

    \b
    Examples:
      zorac-deploy support-bundle tower
      zorac-deploy doctor --bundle support-bundle-20261128-130500.tar.gz
    """
    path = path or Path(f"support-bundle-{time.strftime('%Y%m%d-%H%M%S')}.tar.gz")
    with session(collect_options(host), check=False) as opened:
        known = [rule.rule() for rule in rules.all_rules()]
        facts, troubles = hosts.look(opened.connection, known, opened.name)
        secrets = []
        if (facts.get("about") or {}).get("number"):
            try:
                secrets.append(deployment.api_key(opened.connection))
            except ZoracDeployError as error:
                # Without the key, it cannot be looked for in the logs.
                raise ZoracDeployError(f"the host's key cannot be read, and has to be taken out: {error}") from None
        bundle.write(path, facts, troubles, bundle.redactor(opened.connection, facts, secrets))
    output.print(marked("{}: {} findings. Read it before you give it away.", path, len(troubles)))
