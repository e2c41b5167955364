"""zorac_deploy/environments.py: only a complete environment is cached."""

import pytest

from zorac_deploy import environments
from zorac_deploy.errors import ZoracDeployError


@pytest.fixture
def lock(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "_cache", lambda: tmp_path)
    lock = tmp_path / "lock.txt"
    lock.write_text("click==8.5.1\n")
    return lock


def commands(monkeypatch, fails=False):
    """A fake uv that records its arguments."""
    asked = []

    def uv(*arguments):
        asked.append(arguments)
        if arguments[0] == "venv":
            (environments.Path(arguments[-1])).mkdir(parents=True, exist_ok=True)
        if fails:
            raise ZoracDeployError("uv said no")

    monkeypatch.setattr(environments, "_uv", uv)
    return asked


def test_an_environment_is_created_once(lock, monkeypatch):
    asked = commands(monkeypatch)
    first = environments.ensure("tools", lock)
    assert environments.ensure("tools", lock) == first
    assert [arguments[0] for arguments in asked] == ["venv", "pip"]


def test_an_incomplete_environment_is_rebuilt(lock, monkeypatch):
    commands(monkeypatch, fails=True)
    with pytest.raises(ZoracDeployError):
        environments.ensure("tools", lock)
    assert not environments.is_there("tools", lock)
    asked = commands(monkeypatch)
    environments.ensure("tools", lock)
    assert asked[0][:2] == ("venv", "--clear")


def test_another_lock_is_another_environment(lock):
    before = environments.path("tools", lock)
    lock.write_text("click==8.5.2\n")
    assert environments.path("tools", lock) != before


def test_cpu_torch_comes_from_pips_own_links(lock, monkeypatch):
    lock.write_text("torch==2.13.0+cpu\n")
    asked = commands(monkeypatch)
    monkeypatch.setenv("PIP_FIND_LINKS", "/a /b")
    environments.ensure("tools", lock)
    assert asked[0][asked[0].index("--python") + 1] == "3.11"
    assert asked[1][-5:-1] == ("--find-links", "/a", "--find-links", "/b")
