"""zorac_deploy/scratch.py: directories for the duration of a run. Those of killed runs: integration/test_runner.py."""

import os
from pathlib import Path

import pytest

from zorac_deploy import scratch
from zorac_deploy.errors import ZoracDeployError


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    monkeypatch.setattr(scratch, "_LONGEST", 200)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "zorac-deploy"


def test_a_directory_is_private_and_removed_at_the_end(runtime):
    with scratch.folder() as one, scratch.folder() as two:
        (one / "file").write_text("x")
        assert {one, two} == set(runtime.iterdir())
        assert [path.stat().st_mode & 0o777 for path in (runtime, one)] == [0o700, 0o700]
    assert not list(runtime.iterdir())


def test_only_unlocked_directories_are_removed(runtime):
    (runtime / "left").mkdir(parents=True)
    (runtime / "left" / "file").write_text("x")
    with scratch.folder() as held, scratch.folder():
        assert held.is_dir()
        assert not (runtime / "left").exists()


def test_a_link_in_place_of_a_directory_is_not_followed(runtime, tmp_path):
    (tmp_path / "mine").mkdir()
    runtime.mkdir()
    (runtime / "left").symlink_to(tmp_path / "mine")
    with scratch.folder():
        assert (tmp_path / "mine").is_dir()


@pytest.mark.parametrize("planted", ["link", "foreign"])
def test_a_parent_of_another_user_is_refused(runtime, tmp_path, planted, monkeypatch):
    if planted == "link":
        (tmp_path / "theirs").mkdir()
        runtime.symlink_to(tmp_path / "theirs")
    else:
        runtime.mkdir()
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(ZoracDeployError, match=r"is not a directory of yours.*XDG_RUNTIME_DIR"), scratch.folder():
        pass


def test_a_path_too_long_for_a_socket_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "long" / "as" / "this"))
    with scratch.folder() as made:
        assert made.parent == Path(f"/tmp/zorac-deploy-{os.geteuid()}")  # noqa: S108
