"""Checks of the engine: its port, the deployment, its unit, and its endpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from zorac_deploy.doctor.trouble import Facts, Trouble, part, rows

_KV_FULL = 0.98
# Differences that the check of the unit reports better.
_OF_THE_UNIT = ("loaded", "state", "at boot", "daemon-reload", "unit file")


def port(facts: Facts, _name: str) -> Iterator[Trouble]:
    """Whether another process is on the engine's port."""
    settings, unit_name = part(facts, "about"), part(facts, "unit").get("Id")
    for listener in rows(facts, "listeners"):
        if listener["unit"] != unit_name:
            owner, process = listener["unit"], f"{listener['name']} (process {listener['pid']}"
            stop = f"systemctl stop {owner}" if str(owner).endswith(".service") else f"kill {listener['pid']}"
            yield Trouble(
                "address_in_use",
                "fault",
                f"Another process is on port {settings['port']}, which the engine wants.",
                f"{process}{f' of {owner}' if owner else ''}) listens on port {settings['port']}",
                f"sudo {stop}\nsudo systemctl restart {unit_name}",
                "Do not end processes by name (pkill).",
            )


def drift(facts: Facts, name: str) -> Iterator[Trouble]:
    """The differences that the host's own verification finds."""
    verification = part(facts, "verification")
    pending = verification.get("pending")
    if pending:
        yield Trouble(
            "activation_running",
            "warning",
            f"Generation {pending.get('target')} is being activated for {pending.get('by')}.",
            "an activation is recorded",
            f"zorac-deploy status {name}   # on your machine, in a minute",
        )
    engine_unit = part(facts, "unit")
    differences = [
        difference
        for difference in verification.get("differences", ())
        if not (
            difference.get("kind") == "unit"
            and difference.get("part") == engine_unit.get("Id")
            and difference.get("aspect") in _OF_THE_UNIT
        )
        and not (difference.get("kind") == "generation" and (pending or engine_unit.get("ActiveState") != "active"))
    ]
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for difference in differences:
        groups.setdefault(_owner(difference), []).append(difference)
    titles = {
        "engine_damaged": "The engine's files are not what was installed.",
        "model_damaged": "The model's files are not what was deployed.",
        "drift": "The host is not as it was deployed.",
    }
    for kind, parts in groups.items():
        shown = "; ".join(map(_shown, parts[:3]))
        rest = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
        yield Trouble(
            kind,
            "fault" if kind != "drift" else "warning",
            titles[kind],
            shown + rest,
            f"zorac-deploy up {name}   # on your machine: it restores what differs",
            "Do not repair the files by hand.",
        )
    gave_up = part(facts, "status").get("watchdog", {}).get("gave_up")
    if gave_up:
        yield Trouble(
            "watchdog_gave_up",
            "fault",
            "The watchdog restarted the engine, rolled back, and gave up.",
            str(gave_up),
            f"zorac-deploy generations {name}   # on your machine: what was tried, and why it failed",
        )


def _owner(difference: Mapping[str, Any]) -> str:
    """The finding of a difference: a damaged engine, a damaged model, or other drift."""
    owners = {"engine": "engine_damaged", "model_weights": "model_damaged"}
    return owners.get(str(difference.get("owner")), "drift") if difference.get("kind") in ("tree", "link") else "drift"


def _shown(difference: Mapping[str, Any]) -> str:
    found, expected = difference["found"] or "nothing", difference["expected"] or "as installed"
    return f"{difference['part']}: {difference['aspect']} is {found}, {expected} is wanted"


def unit(facts: Facts, name: str) -> Iterator[Trouble]:
    """The engine's unit: masked, missing, failed, off, or changed without a reload."""
    engine_unit = part(facts, "unit")
    units = rows(facts, "units")
    pending = part(facts, "status").get("pending")
    if facts.get("units") == [] and not pending:
        yield Trouble(
            "no_engine",
            "warning",
            "There is no engine on this host.",
            "no unit of systemd runs vllm or llama-server",
            f"zorac-deploy up {name}   # on your machine",
        )
    if not engine_unit or pending:
        return
    unit_name, deployed = engine_unit["Id"], bool(part(facts, "about").get("number"))
    state, sub = engine_unit.get("ActiveState"), engine_unit.get("SubState")
    if engine_unit.get("LoadState") == "masked" or any(
        other.get("LoadState") == "masked" and other["Id"] == unit_name for other in units
    ):
        again = f"zorac-deploy up {name}   # on your machine" if deployed else f"sudo systemctl start {unit_name}"
        yield Trouble(
            "unit_masked",
            "fault",
            f"{unit_name} is masked: systemd may not start it.",
            f"LoadState=masked, {engine_unit.get('FragmentPath') or '/dev/null'}",
            f"sudo systemctl unmask {unit_name}\n{again}",
        )
    elif engine_unit.get("LoadState") == "not-found":
        yield Trouble(
            "unit_missing",
            "fault",
            f"{unit_name} has no unit file.",
            "LoadState=not-found",
            f"zorac-deploy up {name}   # on your machine",
        )
    elif state == "activating" and int(engine_unit.get("NRestarts") or 0) > 0:
        yield Trouble(
            "unit_restarting",
            "fault",
            f"{unit_name} ended, and systemd is starting it again.",
            f"ActiveState={state}, SubState={sub}, NRestarts={engine_unit.get('NRestarts')}",
            f"journalctl -u {unit_name} -b -n 50   # the cause, unless another finding names it\n"
            f"journalctl -u {unit_name} -f   # whether it serves now",
            confidence=0.65,
        )
    elif state == "failed":
        yield Trouble(
            "unit_failed",
            "fault",
            f"{unit_name} does not stay up: {engine_unit.get('Result')}, "
            f"exit status {engine_unit.get('ExecMainStatus')}.",
            f"ActiveState={state}, SubState={sub}, NRestarts={engine_unit.get('NRestarts')}",
            f"journalctl -u {unit_name} -b -n 50   # the cause, unless another finding names it\n"
            f"sudo systemctl reset-failed {unit_name}\nsudo systemctl start {unit_name}",
            confidence=0.65,
            safe=(f"systemctl reset-failed {unit_name} && systemctl start {unit_name}",),
        )
    elif state == "inactive":
        yield Trouble(
            "unit_stopped",
            "fault",
            f"{unit_name} is stopped.",
            f"ActiveState=inactive, UnitFileState={engine_unit.get('UnitFileState')}",
            f"sudo systemctl enable --now {unit_name}",
            safe=(f"systemctl enable --now {unit_name}",),
        )
    elif engine_unit.get("UnitFileState") == "disabled":
        yield Trouble(
            "unit_disabled",
            "warning",
            f"{unit_name} runs, and does not start at the next boot.",
            "UnitFileState=disabled",
            f"sudo systemctl enable {unit_name}",
            safe=(f"systemctl enable {unit_name}",),
        )
    if engine_unit.get("NeedDaemonReload") == "yes":
        yield Trouble(
            "daemon_reload_needed",
            "warning",
            f"The files of {unit_name} were changed, and systemd does not know it yet.",
            "NeedDaemonReload=yes",
            f"sudo systemctl daemon-reload\nsudo systemctl restart {unit_name}",
            safe=(f"systemctl daemon-reload && systemctl restart {unit_name}",),
        )


def endpoint(facts: Facts, name: str) -> Iterator[Trouble]:
    """The endpoint as a client sees it, and the engine's load."""
    answers, settings, engine_unit = part(facts, "endpoint"), part(facts, "about"), part(facts, "unit")
    if not answers or engine_unit.get("ActiveState") != "active":
        return
    if answers["health"] != 200:
        yield Trouble(
            "endpoint_silent",
            "fault",
            f"The engine's unit is active, and its port {settings['port']} does not answer.",
            f"GET /health: {answers['health'] or 'no answer'}",
            f"journalctl -u {engine_unit['Id']} -b -n 50\nsudo systemctl restart {engine_unit['Id']}",
            confidence=0.8,
        )
        return
    if settings.get("number") and answers["models"] == 401:
        yield Trouble(
            "api_key_401",
            "fault",
            "The engine does not take the key that is stored on the host.",
            "GET /v1/models with the key of /etc/zorac-deploy/api-key: 401",
            f"sudo systemctl restart {engine_unit['Id']}",
            "Do not remove the key from the server.",
            safe=(f"systemctl restart {engine_unit['Id']}",),
        )
    if answers["open"] == 200 and settings.get("host") not in ("127.0.0.1", "::1", "localhost", None):
        yield Trouble(
            "endpoint_open",
            "warning",
            "The endpoint answers on the network without a key.",
            f"GET /v1/models without a key on {settings['host']}:{settings['port']}: 200",
            f"zorac-deploy up {name}   # on your machine: it sets a key; or --api-key in the unit",
        )
    numbers = answers.get("metrics", {})
    running, waiting = numbers.get("num_requests_running", 0), numbers.get("num_requests_waiting", 0)
    if numbers.get("kv_cache_usage_perc", 0) >= _KV_FULL and waiting:
        yield Trouble(
            "kv_cache_full",
            "warning",
            "The KV cache is full, and requests wait for it.",
            f"{running:.0f} requests run and {waiting:.0f} wait",
            f"zorac-deploy up {name} --context N   # on your machine: a shorter context, or fewer clients at a time",
        )
