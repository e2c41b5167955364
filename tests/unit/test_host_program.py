"""zorac_deploy/zipapp.py: the host program is one file, the same from every controller."""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import zorac_deploy
import zorac_host
from zorac_deploy import content, errors, zipapp

_PLUGINS = content.root() / "plugins"
_SOURCE = Path(zorac_host.__file__).parent


@pytest.fixture
def built(tmp_path):
    path = tmp_path / "zorac-host"
    path.write_bytes(zipapp.build(_SOURCE))
    path.chmod(0o755)
    return path


def test_the_same_sources_give_the_same_bytes_with_any_times_and_modes(tmp_path):
    copy = tmp_path / "zorac_host"
    shutil.copytree(_SOURCE, copy)
    for number, path in enumerate(copy.glob("*.py")):
        os.utime(path, (10**9 + number, 10**9 + number))
        path.chmod(0o600)
    assert zipapp.build(copy) == zipapp.build(_SOURCE)
    (copy / "store.py").write_text("")
    assert zipapp.build(copy) != zipapp.build(_SOURCE)


def test_the_program_runs_alone_and_prints_its_version(built):
    told = subprocess.run([built, "version"], cwd="/", env={}, capture_output=True, text=True, check=True).stdout
    assert json.loads(told) == {"version": zorac_deploy.__version__, "protocol": 2}


def test_the_program_runs_from_memory():
    words = ["foreign", "none.service", "--listen", "192.0.2.7", "--port", "8000"]
    command = [sys.executable, "-I", "-c", zipapp.LOADER, *words]
    done = subprocess.run(command, cwd="/", env={}, input=zipapp.packed(), capture_output=True, check=False)
    refusal = errors.refused(done.stdout.decode())
    assert (done.returncode, refusal.refusal) == (4, "settings-invalid")
    assert str(refusal).startswith("vllm_host is '192.0.2.7'")
    assert done.stderr.decode().strip() == str(refusal)


def functions(path):
    """The functions of a module."""
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


def test_a_running_program_does_not_need_its_file():
    # The file may be replaced during an activation: a command first imports all that it needs.
    for path in _SOURCE.glob("*.py"):
        for function in functions(path):
            late = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
            assert late in ([], function.body[:1] if path.name == "cli.py" else []), f"{path.name}: {function.name}"


def test_a_command_imports_no_module_of_another(built):
    code = "import sys; sys.path.insert(0, sys.argv[1]); from zorac_host import status, verify; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-c", code, built], capture_output=True, text=True, check=True)
    others = {"activation", "engine_log", "foreign", "install", "model_manifest", "restore", "watchdog"}
    assert {f"zorac_host.{name}" for name in others} & set(loaded.stdout.split()) == set()
