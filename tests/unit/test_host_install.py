"""zorac_host/install.py: the program and its units are on the host, each the old one or the new one."""

import os
from pathlib import Path

import pytest

from zorac_host import activation, install, service, store

pytestmark = pytest.mark.usefixtures("ran")

SECONDS = {"idle": 300, "stall": 180, "answer": 30}


@pytest.fixture
def ran(disk, monkeypatch):
    """The calls of systemctl, and the waits."""
    calls = []
    monkeypatch.setattr(install, "LIBEXEC", disk / "libexec")
    monkeypatch.setattr(install, "PROGRAM", disk / "libexec/zorac-host")
    monkeypatch.setattr(install, "_own_bytes", lambda: b"new")
    monkeypatch.setattr(service, "systemctl", lambda *words: calls.append(" ".join(words)) or True)
    monkeypatch.setattr(activation, "wait", lambda: calls.append("wait"))
    return calls


def had(disk):
    return {str(path.relative_to(disk)) for path in disk.rglob("*") if path.is_file()}


def test_changed_means_that_a_file_differs_and_a_dry_run_writes_nothing(disk, ran):
    assert install.install(SECONDS, check=True)["changed"]
    assert had(disk) == set()
    told = install.install(SECONDS, check=False)
    assert (told["changed"], len(told["diff"])) == (True, 4)
    assert (install.PROGRAM.read_bytes(), install.PROGRAM.stat().st_mode & 0o7777) == (b"new", 0o755)
    assert ran == ["daemon-reload"]
    assert install.install(SECONDS, check=False) == {"changed": False, "diff": []}


def test_other_limits_change_the_unit(ran):
    install.install(SECONDS, check=False)
    (diff,) = install.install({**SECONDS, "idle": 60}, check=False)["diff"]
    assert diff["before_header"] == str(store.UNITS / "zorac-deploy-watchdog.service")
    assert ran == ["daemon-reload", "daemon-reload"]


@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"old"), lambda path: path.chmod(0o700)])
def test_a_program_that_differs_is_replaced_when_no_activation_needs_it(ran, damage):
    install.install(SECONDS, check=False)
    damage(install.PROGRAM)
    assert install.install(SECONDS, check=False)["changed"]
    assert (install.PROGRAM.read_bytes(), install.PROGRAM.stat().st_mode & 0o7777) == (b"new", 0o755)
    assert ran == ["daemon-reload", "wait"]


def test_a_link_is_replaced_and_the_old_directory_removed(disk):
    (disk / "libexec/zorac_host").mkdir(parents=True)
    (disk / "libexec/zorac_host/store.py").touch()
    install.PROGRAM.symlink_to(disk / "elsewhere")
    assert install.install(SECONDS, check=False)["changed"]
    assert not install.PROGRAM.is_symlink()
    assert [path.name for path in install.LIBEXEC.iterdir()] == ["zorac-host"]


def test_an_interrupted_write_leaves_the_old_file(monkeypatch):
    install.install(SECONDS, check=False)
    install.PROGRAM.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        install.install(SECONDS, check=False)
    assert {path.name: path.read_bytes() for path in install.LIBEXEC.iterdir()} == {"zorac-host": b"old"}


def test_a_file_is_complete_before_it_is_renamed(monkeypatch):
    seen = []

    def rename(scratch, path):
        seen.append((Path(path).name, scratch.read_bytes(), scratch.stat().st_mode & 0o777))
        scratch.replace(path)

    monkeypatch.setattr(Path, "rename", rename)
    install.install(SECONDS, check=False)
    assert seen[0] == ("zorac-host", b"new", 0o755)


def test_the_timer_is_started_once(ran, monkeypatch):
    assert not install.watched(check=False)
    monkeypatch.setattr(service, "systemctl", lambda *words: ran.append(" ".join(words)) or words[0] == "enable")
    assert install.watched(check=True)
    assert install.watched(check=False)
    assert ran[-1] == "enable --now zorac-deploy-watchdog.timer"
