"""Continue after a reboot of the controller itself: a unit re-runs the command once."""

import os
import pwd
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from zorac_deploy import content
from zorac_deploy.connection import Connection
from zorac_deploy.errors import ZoracDeployError

UNIT = "zorac-deploy-resume.service"
_FOLDER = Path("/etc/systemd/system")
_ENVIRONMENT = _FOLDER / "zorac-deploy-resume.env"
# The environment that a run reads: paths, hub tokens, proxies.
_KEPT = re.compile(
    "PATH|HOME|LANG|LC_.*|XDG_(CACHE|CONFIG|DATA|STATE)_HOME|ZORAC_DEPLOY_.*|ANSIBLE_(VAULT|INVENTORY|COLLECTIONS|HOME).*|"
    "(HF|HUGGING_FACE|PIP|UV)_.*|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE|(HTTPS?|ALL|NO|FTP)_PROXY",
    re.IGNORECASE,
)


def schedule(connection: Connection, command: Sequence[str]) -> None:
    """Run `command` once at the next boot of this machine, as this user, in this directory, with this environment.

    Args:
        connection: The connection to this machine, which writes files as root.
        command: The program and its arguments.

    Raises:
        ZoracDeployError: The unit could not be written.
    """
    inherited = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    unit = content.render(
        f"{UNIT}.j2",
        command=" ".join(map(_word, command)),
        user=pwd.getpwuid(os.geteuid()).pw_name,
        folder=str(Path.cwd()).replace("%", "%%"),
        environment=_ENVIRONMENT,
        unit=UNIT,
    )
    variables = "".join(f"{name}={_value(value)}\n" for name, value in inherited.items())
    for arguments, stdin in (
        (["install", "--mode=0600", "/dev/stdin", str(_ENVIRONMENT)], variables),
        (["install", "--mode=0644", "/dev/stdin", str(_FOLDER / UNIT)], unit),
        (["systemctl", "enable", "--quiet", UNIT], ""),
    ):
        done = subprocess.run(connection.command(*arguments), input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ZoracDeployError(f"cannot schedule the run after the reboot: {done.stderr.strip()}")


def _word(text: str) -> str:
    """Quote an argument for a unit's command line."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("%", "%%").replace("$", "$$")
    return f'"{plain}"'


def _value(text: str) -> str:
    """Quote a value for an environment file."""
    return '"' + re.sub(r'[\\"`$]', r"\\\g<0>", text) + '"'
