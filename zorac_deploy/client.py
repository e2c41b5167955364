"""The settings of the chat client Zorac for a host's endpoint."""

import ipaddress
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from zorac_deploy.connection import Connection, bracketed
from zorac_deploy.deployment import Deployment
from zorac_deploy.errors import ZoracDeployError
from zorac_deploy.inventory import Target


@dataclass(frozen=True)
class Limits:
    """How a conversation divides the context into input and output, in tokens."""

    max_input_tokens: int
    max_output_tokens: int


def limits(context: int) -> Limits:
    """The limits that fit into a context of `context` tokens.

    An eighth is for the reply, up to Zorac's default of 4,000. A fifth of the rest is reserved: Zorac counts with
    another tokenizer than the model's, which counts 1.19 times as many tokens for German, and the chat template adds
    tokens.
    """
    output = min(4000, context // 8)
    return Limits((context - output) * 4 // 5, output)


def config_file() -> Path:
    """The path of Zorac's settings on this machine, from the same two variables that Zorac reads."""
    folder = Path(os.environ.get("ZORAC_DIR") or Path.home() / ".zorac")
    return Path(os.environ.get("ZORAC_CONFIG_FILE") or folder / "config.json")


def needs_tunnel(connection: Connection, deployment: Deployment) -> bool:
    """Whether the endpoint listens on an address that this machine cannot reach."""
    return not connection.target.local and _kind(deployment.listen) == "loopback"


def settings(connection: Connection, deployment: Deployment, api_key: str) -> dict[str, str]:
    """Zorac's settings for `deployment`, in the format of its configuration file."""
    address = bracketed(_address(connection.target, deployment.listen))
    fitting = {
        "VLLM_BASE_URL": f"http://{address}:{deployment.port}/v1",
        "VLLM_API_KEY": api_key,
        "VLLM_MODEL": deployment.model,
    }
    if deployment.max_model_len:
        limit = limits(deployment.max_model_len)
        fitting |= {"MAX_INPUT_TOKENS": str(limit.max_input_tokens), "MAX_OUTPUT_TOKENS": str(limit.max_output_tokens)}
    return fitting


def _address(target: Target, listen: str) -> str:
    """The address of the server for a client on this machine."""
    kind = _kind(listen)
    if kind == "all":
        return "localhost" if target.local else target.address
    # Through a tunnel or on this machine; localhost may resolve to the IPv4 address only.
    if kind == "loopback" and not (target.local and ":" in listen):
        return "localhost"
    return listen


def _kind(listen: str) -> Literal["all", "loopback", "one"]:
    """The address families of a server on `listen`."""
    try:
        address = ipaddress.ip_address(listen)
    except ValueError:
        return "loopback" if listen == "localhost" else "one"
    return "all" if address.is_unspecified else "loopback" if address.is_loopback else "one"


def write(fitting: Mapping[str, str], always: bool = False) -> str:
    """Write `fitting` into Zorac's settings on this machine, and return a line about it.

    Nothing is written if Zorac was never used here or uses another server, unless `always` is set. Other settings in
    the file are unchanged.

    Raises:
        ZoracDeployError: The file is not a settings file.
    """
    file = config_file()
    if always:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    elif not file.parent.is_dir():
        return "Zorac is not used on this machine: nothing written"
    try:
        stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ZoracDeployError(f"{file} is not JSON: {error}. Repair or remove it, then re-run the command.") from None
    if not isinstance(stored, dict):
        raise ZoracDeployError(f"{file} is not a JSON object. Repair or remove it, then re-run the command.")
    if not always and stored.get("VLLM_BASE_URL", fitting["VLLM_BASE_URL"]) != fitting["VLLM_BASE_URL"]:
        return f"{file} is for {stored['VLLM_BASE_URL']}: not changed"
    if {**stored, **fitting} == stored:
        return f"{file} is up to date"
    scratch = file.with_suffix(".partial")
    scratch.touch(mode=0o600)
    scratch.write_text(json.dumps({**stored, **fitting}, indent=2), encoding="utf-8")
    scratch.replace(file)
    return f"written to {file}"
