"""`zorac-deploy doctor`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table

from zorac_deploy.cli.common import (
    HostOptions,
    collect_options,
    host_options,
    json_option,
    output,
    print_result,
    session,
)
from zorac_deploy.cli.terminal import clean, marked
from zorac_deploy.doctor import log as logs
from zorac_deploy.doctor import rules

if TYPE_CHECKING:
    from zorac_deploy.connection import Connection
    from zorac_deploy.doctor.trouble import Trouble

# The rows of a finding: label and key.
_ROWS = (
    ("evidence", "evidence"),
    ("fix", "fix"),
    ("avoid", "not_to_advise"),
    ("decide by", "second_signal"),
)


@click.command()
@host_options
@click.option("--log", "path", metavar="FILE|-", help="Diagnose a log: a file, or - for standard input.")
@click.option("--bundle", metavar="FILE", help="Diagnose a support bundle.")
@click.option("--rules", "list_rules", is_flag=True, help="List the rules, including your own.")
@click.option("--fix", is_flag=True, help="Offer the safe cures, then check again.")
@json_option("Print the findings as a JSON list.")
def doctor(path: str | None, bundle: str | None, list_rules: bool, fix: bool, as_json: bool, **host: object) -> None:
    """Find what is wrong on HOST, and the command that cures it.

    It checks disks, packages, the driver, the GPUs, the engine's unit, port and log, the deployment, the endpoint, and
    Zorac's settings on this machine, in one call that changes nothing. HOST need not be deployed. The exit code is 0
    with and without findings.

    With --log it reads a log without a host: of vLLM, llama.cpp, the kernel, apt, dkms or systemd, or of several of
    them. Of several starts, the last failed one is diagnosed.

    \b
    Examples:
      zorac-deploy doctor tower
      zorac-deploy doctor --host me@192.168.1.50 --profile headless
      journalctl -u vllm -b --no-pager | zorac-deploy doctor --log -
    """
    if fix and as_json:
        raise click.UsageError("--fix asks questions, --json is for programs. Omit one of them.")
    if list_rules:
        _list(as_json)
    elif path:
        findings = [finding.summary() for finding in logs.diagnose(path, [rule.rule() for rule in rules.all_rules()])]
        _print(findings, "nothing found: no line of this log matches a rule.", as_json)
    elif bundle:
        _unpack(bundle, as_json)
    else:
        _examine(collect_options(host), fix, as_json)


def _examine(options: HostOptions, fix: bool, as_json: bool) -> None:
    from zorac_deploy.doctor import host as hosts

    known = [rule.rule() for rule in rules.all_rules()]
    with session(options, check=False) as opened:
        name = options.command_line() or opened.name
        _, troubles = hosts.look(opened.connection, known, name)
        checked = f"nothing is wrong with {opened.name}. Checked: {', '.join(hosts.CHECKED)}."
        _print([trouble.summary() for trouble in troubles], checked, as_json)
        if fix and _cure(opened.connection, troubles):
            _, troubles = hosts.look(opened.connection, known, name)
            _print([trouble.summary() for trouble in troubles], checked, as_json)


def _unpack(path: str, as_json: bool) -> None:
    from zorac_deploy.doctor import bundle
    from zorac_deploy.doctor import host as hosts

    troubles = hosts.diagnose(bundle.read(path), [rule.rule() for rule in rules.all_rules()], "HOST")
    _print([trouble.summary() for trouble in troubles], "nothing is wrong with the host of this bundle.", as_json)


def _cure(connection: Connection, troubles: Sequence[Trouble]) -> bool:
    """Offer every safe cure; return whether one was tried."""
    tried = False
    for trouble in troubles:
        for command in trouble.safe:
            if click.confirm(clean(f"{trouble.cause} Run on {connection.target.name}: {command}?"), default=False):
                done = connection.run("sh", "-c", command)
                tried = True
                if done.returncode != 0:
                    output.print(f"it failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return tried


def _print(findings: Sequence[dict[str, Any]], nothing: str, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(findings, indent=2))
    elif not findings:
        output.print(nothing)
    for number, finding in enumerate(() if as_json else findings, 1):
        kind = f"({finding['id']}, {finding['confidence']:.0%})"
        output.print(marked("[bold]{}. {}[/] [dim]{}[/]", number, finding["cause"], kind))
        for name, key in _ROWS:
            if text := str(finding.get(key, "")):
                output.print_row(marked("   [bold]{:<9}[/]  ", name), text)


def _list(as_json: bool) -> None:
    known = rules.all_rules()
    if as_json:
        listed = [rule.model_dump(mode="json", exclude_none=True, exclude={"fixtures"}) for rule in known]
        print_result({"rules": listed})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("id", "severity", "failure", "versions"):
        table.add_column(name)
    for rule in known:
        table.add_row(rule.id, rule.severity, rule.title, rule.versions)
    output.print(table)
    output.print(f"{len(known)} rules. Add your own to {rules.user_folder()}, one per file.")
