"""Imports go downward only."""

import ast
import re
import sys

from zorac_deploy import content

_PACKAGE = content.root() / "zorac_deploy"
# A module may import from its own layer's left and nothing from its right.
_ORDER = [
    "errors",
    "content",
    "scratch",
    "environments",
    "engine_settings",
    "compatibility",
    "driver",
    "planner",
    "profiles",
    "inventory_cache",
    "inventory",
    "connection",
    "gpus",
    "resume",
    "chat",
    "desired",
    "inputs",
    "zipapp",
    "host_program",
    "convergence",
    "deployment",
    "client",
    "doctor",
    "models",
    "quantize",
    "bundle",
    "actions",
    "launcher",
    "runner",
    "growth",
    "sandbox",
    "cli",
]


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module):
    parts = module.split(".")
    return parts[1] if parts[0] == "zorac_deploy" and len(parts) > 1 and parts[1] in _ORDER else None


def test_every_module_has_a_layer():
    found = {path.name.removesuffix(".py") for path in _PACKAGE.iterdir() if path.name[0] not in "_."}
    assert found == set(_ORDER)


def test_imports_go_downward():
    for path in _PACKAGE.rglob("*.py"):
        own = path.relative_to(_PACKAGE).parts[0].removesuffix(".py")
        if own not in _ORDER:
            continue
        for module in imports(path):
            other = layer(module)
            assert other is None or _ORDER.index(other) <= _ORDER.index(own), f"{path} imports {module}"


def test_only_the_runner_knows_ansible_runner():
    knowing = {path.name for path in _PACKAGE.rglob("*.py") if any(m.startswith("ansible") for m in imports(path))}
    assert knowing == {"runner.py"}


def test_the_host_program_imports_nothing_of_the_controller():
    for path in (content.root() / "zorac_host").rglob("*.py"):
        known = {module.split(".")[0] for module in imports(path)} - sys.stdlib_module_names
        assert known <= {"zorac_host"}, path


def test_only_the_cli_knows_click_and_rich():
    for path in _PACKAGE.rglob("*.py"):
        if "cli" not in path.parts:
            assert not any(module.split(".")[0] in ("click", "rich") for module in imports(path)), path


def test_roles_name_no_other_role():
    roles = [role.name for role in (content.root() / "roles").iterdir()]
    for role in roles:
        for path in (content.root() / "roles" / role).rglob("*.yml"):
            text = path.read_text().replace(role, "own")
            for other in set(roles) - {role}:
                # A name that is also a common word counts where its variables are read or it is imported.
                named = other if "_" in other else rf"{{{{[^}}]*(?<![\w.'])_*{other}_\w|(?:name|role): {other}\b"
                assert not re.search(named, text), f"{path} names {other}"
