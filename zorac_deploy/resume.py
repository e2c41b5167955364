"""Go on after the reboot of the very machine that the run is on: a unit that types the same command again, once."""

import os
import pwd
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from zorac_deploy import content
from zorac_deploy.connection import Connection
from zorac_deploy.errors import ZoracDeployError

UNIT = "zorac-deploy-resume.service"


def schedule(connection: Connection, command: Sequence[str]) -> None:
    """Have `command` run once at the next boot of this machine, as this user, in this folder.

    Args:
        connection: The way to this machine, by which root's files are written.
        command: The program and its arguments.

    Raises:
        ZoracDeployError: The unit could not be written.
    """
    environment = {
        name: value for name, value in os.environ.items() if name.startswith(("PATH", "HOME", "ZORAC_DEPLOY_"))
    }
    text = content.render(
        f"{UNIT}.j2",
        command=shlex.join(command).replace("%", "%%"),
        user=pwd.getpwuid(os.geteuid()).pw_name,
        folder=Path.cwd(),
        environment={name: value.replace("%", "%%") for name, value in environment.items()},
        unit=UNIT,
    )
    for words, given in (
        (["tee", f"/etc/systemd/system/{UNIT}"], text),
        (["systemctl", "enable", "--quiet", UNIT], ""),
    ):
        done = subprocess.run(connection.command(*words), input=given, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ZoracDeployError(f"could not arrange to go on after the reboot: {done.stderr.strip()}")
