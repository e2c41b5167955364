"""Check that Zorac's settings on this machine match what a host serves."""

import hashlib
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

from zorac_deploy import client
from zorac_deploy.connection import Connection
from zorac_deploy.doctor.trouble import Trouble


def troubles(connection: Connection, facts: Mapping[str, Any], name: str) -> Iterator[Trouble]:
    """The findings in Zorac's settings; none if Zorac is not used here, or uses another server.

    Args:
        connection: The host.
        facts: The results of its probes.
        name: The host's name on a command line.
    """
    settings, endpoint = facts.get("about") or {}, facts.get("endpoint") or {}
    zorac_settings = _settings()
    if not zorac_settings or not settings.get("port") or not _same_server(connection, zorac_settings, settings):
        return
    cure = f"zorac-deploy client-config {name} --write   # on your machine"
    served = endpoint.get("served") or []
    if zorac_settings.get("VLLM_MODEL") and served and zorac_settings["VLLM_MODEL"] not in served:
        yield Trouble(
            "model_name_404",
            "fault",
            "Zorac asks for a model that the host does not serve.",
            f"Zorac: {zorac_settings['VLLM_MODEL']}; the host: {', '.join(served)}",
            cure,
            "Do not load the model again.",
        )
    digest = hashlib.sha256(str(zorac_settings.get("VLLM_API_KEY", "EMPTY")).encode()).hexdigest()
    if endpoint.get("key_sha256") and endpoint["key_sha256"] != digest:
        yield Trouble(
            "api_key_401",
            "fault",
            "Zorac has another API key than the host.",
            f"VLLM_API_KEY in {client.config_file()} is not the host's",
            cure,
            "Do not remove the key from the server.",
        )
    tokens = [str(zorac_settings.get(key, "")) for key in ("MAX_INPUT_TOKENS", "MAX_OUTPUT_TOKENS")]
    context = settings.get("max_model_len")
    if context and all(value.isdecimal() for value in tokens) and sum(map(int, tokens)) > context:
        yield Trouble(
            "context_overflow",
            "fault",
            "Zorac may send longer conversations than the host takes. It answers 400 then.",
            f"{' + '.join(tokens)} tokens in Zorac's settings, {context} on the host",
            cure,
        )


def _settings() -> Mapping[str, Any]:
    try:
        content = json.loads(client.config_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _same_server(connection: Connection, zorac_settings: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether Zorac's address is the host's: its own address, or a tunnel on this machine."""
    try:
        address = urllib.parse.urlsplit(str(zorac_settings.get("VLLM_BASE_URL", "http://localhost:8000/v1")))
        port = address.port or 80
    except ValueError:
        return False
    return port == settings["port"] and address.hostname in ("localhost", "127.0.0.1", "::1", connection.target.address)
