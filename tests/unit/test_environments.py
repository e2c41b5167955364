"""zorac_deploy/environments.py: an environment is kept when it is whole, and only then."""

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
    """A stand-in for uv, which notes what it was asked."""
    asked = []

    def uv(*arguments):
        asked.append(arguments)
        if arguments[0] == "venv":
            (environments.Path(arguments[-1])).mkdir(parents=True, exist_ok=True)
        if fails:
            raise ZoracDeployError("uv said no")

    monkeypatch.setattr(environments, "_uv", uv)
    return asked


def test_it_is_made_once(lock, monkeypatch):
    asked = commands(monkeypatch)
    first = environments.ensure("tools", lock)
    assert environments.ensure("tools", lock) == first
    assert [arguments[0] for arguments in asked] == ["venv", "pip"]


def test_one_that_was_cut_off_is_made_anew(lock, monkeypatch):
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


def test_torch_for_the_processor_comes_from_where_pip_looks(lock, monkeypatch):
    lock.write_text("torch==2.13.0+cpu\n")
    asked = commands(monkeypatch)
    monkeypatch.setenv("PIP_FIND_LINKS", "/a /b")
    environments.ensure("tools", lock)
    assert asked[0][asked[0].index("--python") + 1] == "3.11"
    assert asked[1][-5:-1] == ("--find-links", "/a", "--find-links", "/b")
