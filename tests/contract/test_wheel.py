"""The wheel has all files of the checkout: sdist, wheel from the sdist, a clean environment, another directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import uv
import yaml

from zorac_deploy import content

_ROOT = content.root()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The ``bin`` directory of an environment with zorac-deploy from its wheel and nothing of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")

    def ran(*command):
        subprocess.run([str(word) for word in command], cwd=folder, check=True, capture_output=True)

    ran(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, _ROOT)
    (wheel,) = folder.glob("*.whl")
    ran(uv.find_uv_bin(), "venv", "--python", sys.executable, folder / "venv")
    python = folder / "venv/bin/python"
    ran(uv.find_uv_bin(), "pip", "install", "--python", python, "--constraints", _ROOT / "requirements.lock", wheel)
    return folder / "venv/bin"


def run(installed, *arguments, cwd):
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PATH"] = "/usr/bin:/bin:/usr/sbin:/sbin"  # nothing of the checkout's environment
    command = [installed / "zorac-deploy", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_help_works_from_another_directory(installed, tmp_path):
    done = run(installed, "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Examples:" in done.stdout


def files(folder):
    """The files below `folder`, except Python's byte code."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_the_wheel_has_playbooks_roles_inventory_and_templates(installed):
    (shipped,) = installed.parent.glob("lib/python*/site-packages/zorac_deploy/_content")
    for part in ("playbooks", "roles", "inventory", "templates", "docs"):
        assert files(_ROOT / part) == files(shipped / part)
    assert (shipped / "ansible.cfg").is_file()


def test_the_documentation_is_where_the_command_says(installed, tmp_path):
    folder = Path(run(installed, "--docs", cwd=tmp_path).stdout.strip())
    assert (folder / "reference/exit-codes.md").is_file()
    assert tmp_path not in folder.parents


def test_the_package_names_its_project(installed):
    (metadata,) = installed.parent.glob("lib/python*/site-packages/zorac_deploy-*.dist-info/METADATA")
    repository = yaml.safe_load((_ROOT / "galaxy.yml").read_text())["repository"]
    assert f"Project-URL: Repository, {repository}\n" in metadata.read_text()


@pytest.mark.host
def test_a_dry_run_works_from_the_wheel(installed, tmp_path):
    from zorac_deploy.sandbox import host, model

    model.ensure()
    sandbox = host.up("test-wheel", network="isolated")
    try:
        done = run(installed, "up", "--check", "--inventory", sandbox.inventory, cwd=tmp_path)
    finally:
        host.down("test-wheel")
    assert done.returncode == 0, done.stderr
    assert "would change something" in done.stdout
