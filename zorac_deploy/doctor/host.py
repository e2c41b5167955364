"""Examine a host in one call, and report what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from zorac_deploy import zipapp
from zorac_deploy.connection import Connection
from zorac_deploy.doctor import checks, zorac
from zorac_deploy.doctor.rules import Linear
from zorac_deploy.doctor.trouble import Facts, Trouble, answers, part
from zorac_deploy.errors import ZoracDeployError
from zorac_host import diagnosis

# The parts that are checked, for the user.
CHECKED = (
    "disks",
    "packages",
    "driver",
    "GPU health and memory",
    "port",
    "what was deployed",
    "unit",
    "logs of the engine and the kernel",
    "endpoint",
    "Zorac's settings",
)
# A finding of a log that a probe can confirm: it is reported only if the probe does.
_LOOKED_AT = {
    "address_in_use": "port",
    "disk_full": "disks",
    "dpkg_locked": "packages",
    "apt_held_broken": "packages",
    "driver_library_mismatch": "driver",
    "api_key_401": "client",
    "model_name_404": "client",
}


def examine(connection: Connection) -> dict[str, Any]:
    """The results of the probes on the connection's host, by name. The program runs from memory and changes nothing.

    Raises:
        ZoracDeployError: The host cannot be reached, or its Python cannot run the program.
    """
    command = ("/usr/bin/python3", "-I", "-c", zipapp.LOADER, "examine")
    done = connection.run(*command, stdin=zipapp.packed())
    if done.returncode != 0:
        connection.check()
        name, message = connection.target.name, done.stderr.strip()
        if done.returncode == 127:
            raise ZoracDeployError(
                f"{name} has no /usr/bin/python3, and doctor needs one. Type there: sudo apt-get install python3"
            )
        raise ZoracDeployError(f"the look at {name} failed: {message[-500:] or f'exit code {done.returncode}'}")
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def look(connection: Connection, rules: Iterable[diagnosis.Rule], name: str) -> tuple[dict[str, Any], list[Trouble]]:
    """The results of the probes on the connection's host, and the findings, with those in Zorac's settings here."""
    facts = examine(connection)
    troubles = [*diagnose(facts, rules, name), *zorac.troubles(connection, facts, name)]
    return facts, sorted(troubles, key=lambda trouble: trouble.rank)


def diagnose(facts: dict[str, Any], rules: Iterable[diagnosis.Rule], name: str) -> list[Trouble]:
    """The findings on a host, the worst first: from the probes, and from its logs.

    Args:
        facts: The result of `examine`.
        rules: The rules for logs.
        name: The host's name on a command line.
    """
    troubles = list(checks.all_of(facts, name))
    known = {trouble.id for trouble in troubles}
    system = str(facts.get("system", {}).get("id", "")) if isinstance(facts.get("system"), dict) else ""
    logged = of_logs(facts, rules, system)
    new = (finding for finding in logged if finding.id not in known and finding.id not in _LOOKED_AT)
    troubles += [Trouble.of(_decided(finding, part(facts, "system"))) for finding in new]
    return sorted(troubles, key=lambda trouble: trouble.rank)


def _decided(finding: diagnosis.Finding, system: Facts) -> diagnosis.Finding:
    """The finding with its second signal as the host's probes read it, if they do."""
    if finding.id != "hf_connection" or system.get("resolves") is not False:
        return finding
    return replace(
        finding,
        cause="The host cannot resolve huggingface.co: it has no network, or its name server does not answer.",
        evidence=f"{finding.evidence}; getent hosts huggingface.co finds nothing",
        fix=f"resolvectl status   # the name servers of the host\n{finding.fix}",
        second_signal="",
    )


def of_logs(facts: dict[str, Any], rules: Iterable[diagnosis.Rule], system: str) -> list[diagnosis.Finding]:
    """The findings in the host's own logs. The engine's log counts only while the engine does not answer."""
    reading = diagnosis.Diagnosis(rules, Linear(), system)
    serves = answers(facts)
    for log in ("kernel_log", "engine_log"):
        text = facts.get(log)
        for line in text.splitlines() if isinstance(text, str) and not (serves and log == "engine_log") else ():
            reading.feed(line)
    return reading.findings()
