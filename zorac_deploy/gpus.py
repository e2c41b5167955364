"""A host's GPUs and the processes using their memory, as reported by the host program that the roles use too."""

import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from zorac_deploy.connection import Connection
from zorac_host import nvidia_probe


@dataclass(frozen=True)
class Holder:
    """A process that uses GPU memory.

    Attributes:
        name: The process's name.
        pid: Its process id.
        unit: Its systemd unit; None if unknown.
        used_mib: The memory it uses, in MiB; None if the driver does not report it.
    """

    name: str
    pid: int
    unit: str | None
    used_mib: int | None


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU.

    Attributes:
        address: Its PCI address.
        name: Its product name; None if no driver works.
        uuid: Its UUID; None if no driver works.
        compute: Its compute capability, such as ``8.9``; None if no driver works.
        total_mib: Its memory in MiB.
        used_mib: The memory in use, in MiB.
        power_watts: The power limit in watts: ``current``, ``default``, ``min`` and ``max``.
        monitor: Whether a monitor is connected to it.
        holders: The processes using its memory, the largest first.
    """

    address: str
    name: str | None
    uuid: str | None
    compute: str | None
    total_mib: int | None
    used_mib: int | None
    power_watts: dict[str, float | None]
    monitor: bool
    holders: tuple[Holder, ...]


@dataclass(frozen=True)
class Gpus:
    """The GPUs of a host and its driver.

    Attributes:
        host: The host's name in the inventory.
        driver: The version of the loaded driver; None for none.
        error: The error of nvidia-smi; None if it works.
        cards: The GPUs, by their address.
    """

    host: str
    driver: str | None
    error: str | None
    cards: tuple[Gpu, ...]

    def summary(self) -> dict[str, object]:
        """What `gpus --json` prints."""
        return asdict(self)


def read(connection: Connection) -> Gpus:
    """Read the GPUs of the connection's host.

    Raises:
        ZoracDeployError: The host program failed.
    """
    probe = inspect.getsource(nvidia_probe)
    answer = json.loads(connection.read("python3", "-c", probe))
    by_address = {gpu["address"]: gpu for gpu in answer["gpus"]}
    addresses = sorted({*by_address, *(card["address"] for card in answer["cards"])})
    cards = tuple(_card(address, by_address.get(address, {}), answer) for address in addresses)
    return Gpus(connection.target.name, answer["driver"]["loaded"], answer["smi_error"], cards)


def _card(address: str, gpu: Mapping[str, Any], answer: Mapping[str, Any]) -> Gpu:
    holders = [
        Holder(**{key: value for key, value in holder.items() if key != "gpu"})
        for holder in answer["holders"]
        if holder["gpu"] == gpu.get("uuid")
    ]
    facts = {key: gpu.get(key) for key in ("name", "uuid", "compute", "total_mib", "used_mib")}
    return Gpu(
        address=address,
        power_watts=gpu.get("power_watts", {}),
        monitor=address in answer["monitors"],
        holders=tuple(sorted(holders, key=lambda holder: -(holder.used_mib or 0))),
        **facts,
    )
