"""What is deployed on a host: read from the host itself, in one look."""

import json
from dataclasses import asdict, dataclass

from zorac_deploy.chat import Endpoint
from zorac_deploy.connection import Connection
from zorac_deploy.errors import NotDeployed

UNIT = "vllm.service"
KEY_FILE = "/etc/zorac-deploy/api-key"

# Printed as one JSON object, so that one connection tells all.
_LOOK = r"""
import json, pathlib, subprocess, urllib.request
keys = ["ActiveState", "SubState", "ActiveEnterTimestamp", "NRestarts", "MainPID", "UnitFileState", "Result"]
shown = subprocess.run(["systemctl", "show", "vllm.service", "--timestamp=unix", "--property=" + ",".join(keys)],
                       capture_output=True, text=True).stdout
record = pathlib.Path("/etc/zorac-deploy/deployment.json")
found = {"unit": dict(line.split("=", 1) for line in shown.splitlines() if "=" in line),
         "record": json.loads(record.read_text()) if record.is_file() else None, "health": None}
if found["record"]:
    host = found["record"]["host"].replace("0.0.0.0", "127.0.0.1")
    try:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open("http://%s:%s/health" % (host, found["record"]["port"]), timeout=5) as answer:
            found["health"] = answer.status
    except Exception as error:
        found["health"] = str(error)
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Deployment:
    """What a host serves.

    Attributes:
        host: The host's name in the inventory.
        profile: The profile that it was deployed with.
        engine: The engine and its version, the name of its lock.
        model: The name by which clients ask for the model.
        model_path: The model's folder on the host.
        max_model_len: The longest conversation in tokens; None is the model's own limit.
        listen: The address that the server listens on.
        port: Its port.
        state: systemd's word for the unit: active, activating, failed, inactive.
        since: When the unit became active, in seconds of the Unix epoch; None if it is not.
        restarts: How often systemd has restarted the engine since then.
        enabled: Whether it starts with the host.
        healthy: Whether the health check answers 200.
    """

    host: str
    profile: str
    engine: str
    model: str
    model_path: str
    max_model_len: int | None
    listen: str
    port: int
    state: str
    since: int | None
    restarts: int
    enabled: bool
    healthy: bool

    @property
    def local_address(self) -> str:
        """The address by which the host itself reaches the server."""
        return "127.0.0.1" if self.listen == "0.0.0.0" else self.listen  # noqa: S104 - compared, not bound

    def summary(self) -> dict[str, object]:
        """What `status --json` prints."""
        return asdict(self)


def read(connection: Connection) -> Deployment:
    """What is deployed on the connection's host.

    Raises:
        NotDeployed: Nothing is.
    """
    found = json.loads(connection.read("python3", "-c", _LOOK))
    record, unit = found["record"], found["unit"]
    name = connection.target.name
    if record is None:
        raise NotDeployed(f"nothing is deployed on {name}. Type: zorac-deploy up, naming the host as you did now.")
    since = unit.get("ActiveEnterTimestamp", "").removeprefix("@")
    return Deployment(
        host=name,
        profile=record["profile"],
        engine=record["engine"],
        model=record["model"],
        model_path=record["model_path"],
        max_model_len=record["max_model_len"],
        listen=record["host"],
        port=int(record["port"]),
        state=unit.get("ActiveState", "unknown"),
        since=int(since) if since.isdecimal() and int(since) and unit.get("ActiveState") == "active" else None,
        restarts=int(unit.get("NRestarts") or 0),
        enabled=unit.get("UnitFileState") == "enabled",
        healthy=found["health"] == 200,
    )


def endpoint(connection: Connection, deployment: Deployment, port: int) -> Endpoint:
    """The deployment as a client reaches it through `port` of this machine."""
    key = connection.read("cat", KEY_FILE).strip()
    address = deployment.local_address if connection.target.local else "127.0.0.1"
    return Endpoint(f"http://{address}:{port}", deployment.model, key)
