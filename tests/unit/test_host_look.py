"""zorac_host/look.py: the facts of a host."""

import errno
import hashlib
import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.refusals import refuses
from zorac_host import cli, look, store


@pytest.fixture
def deployed(tmp_path, monkeypatch):
    for name, folder in (("ETC", "etc"), ("STATE", "state"), ("CURRENT", "etc/current")):
        monkeypatch.setattr(store, name, tmp_path / folder)
    return tmp_path


def users(monkeypatch, **known):
    """Create these users, each with its id, home and shell, and a group of the same name."""

    def user(name):
        uid, home, shell = known[name]
        return pwd.struct_passwd((name, "x", uid, uid, "", home, shell))

    monkeypatch.setattr(look.pwd, "getpwnam", user)
    monkeypatch.setattr(look.grp, "getgrnam", lambda name: known[name])


OURS = (998, "/nonexistent", "/usr/sbin/nologin")


def test_no_account_has_the_name(deployed, monkeypatch):
    users(monkeypatch)
    told = look.account("vllm", deployed / "engines")
    assert told == {"found": None, "ours": False, "ready": False, "made": [], "serves": ""}


def test_a_recorded_user_is_ours(deployed, monkeypatch):
    users(monkeypatch, vllm=OURS)
    (deployed / "state").mkdir()
    (deployed / "state" / "users.txt").write_text("other\nvllm\n")
    assert look.account("vllm", deployed / "engines")["made"] == ["other", "vllm"]
    assert look.account("vllm", deployed / "engines")["ours"]


@pytest.mark.parametrize(
    ("user", "record", "ready"),
    [(OURS, "vllm\n", True), (OURS, "other\n", False), ((998, "/home/vllm", OURS[2]), "vllm\n", False)],
)
def test_a_user_is_ready_if_recorded_and_unchanged(deployed, monkeypatch, user, record, ready):
    users(monkeypatch, vllm=user)
    (deployed / "state").mkdir()
    (deployed / "state" / "users.txt").write_text(record)
    assert look.account("vllm", deployed / "engines")["ready"] is ready


def test_a_user_in_another_group_is_not_ready(deployed, monkeypatch):
    users(monkeypatch, vllm=OURS)
    (deployed / "state").mkdir()
    (deployed / "state" / "users.txt").write_text("vllm\n")
    monkeypatch.setattr(look.os, "getgrouplist", lambda *_: [OURS[0], 27])
    assert not look.account("vllm", deployed / "engines")["ready"]


@pytest.mark.parametrize(("mode", "ready"), [(0o600, os.getuid() == 0), (0o644, False)])
def test_an_api_key_is_ready_if_only_root_can_read_it(tmp_path, mode, ready):
    key = tmp_path / "api-key"
    assert look.api_key(key) == {"sha256": None, "ready": False}
    key.write_text("secret\n")
    key.chmod(mode)
    assert look.api_key(key) == {"sha256": hashlib.sha256(b"secret").hexdigest(), "ready": ready}


@pytest.mark.parametrize(
    ("user", "exists", "ours"),
    [
        (OURS, "engines", True),  # an earlier version did not record it
        (OURS, "nothing", False),
        ((1000, *OURS[1:]), "engines", False),
        ((998, "/home/vllm", OURS[2]), "engines", False),
        ((998, OURS[1], "/bin/sh"), "engines", False),
    ],
)
def test_an_earlier_versions_user_is_ours(deployed, monkeypatch, user, exists, ours):
    users(monkeypatch, vllm=user)
    (deployed / exists).mkdir()
    told = look.account("vllm", deployed / "engines")
    assert told["found"] == f"user vllm (uid {user[0]}, home {user[1]}, shell {user[2]})"
    assert (told["ours"], told["made"]) == (ours, ["vllm"] if ours else [])


def test_a_group_with_the_name_is_an_account(deployed, monkeypatch):
    users(monkeypatch)
    monkeypatch.setattr(look.grp, "getgrnam", lambda name: name)
    assert look.account("vllm", deployed / "engines")["found"] == "group vllm"


def test_the_engines_user_is_reported(deployed, monkeypatch):
    users(monkeypatch)
    (deployed / "etc/current").mkdir(parents=True)
    (deployed / "etc/current/vllm.service").write_text("[Service]\nUser=old\n")
    assert look.account("vllm", deployed / "engines")["serves"] == "old"


def test_space_is_that_of_the_nearest_existing_directory(tmp_path):
    told = look.disk(tmp_path / "not" / "there")
    assert not told["exists"]
    assert told["device"] == tmp_path.stat().st_dev
    assert 0 < told["free"] < sys.maxsize
    assert look.disk(tmp_path)["exists"]


def test_sizes_of_files_are_summed_and_a_missing_directory_is_0(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(bytes(100_000))
    assert 100_000 <= look.used(tmp_path) < 200_000
    assert look.used(tmp_path / "none") == 0


def test_only_installed_packages_are_listed(tmp_path, monkeypatch):
    program = tmp_path / "dpkg-query"
    program.write_text("#!/bin/sh\nprintf 'ii |bash\\nrc |gone\\nhi |kept\\niU |half\\n'")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert look.packages() == ["bash", "kept"]


def test_versions_include_half_installed_packages(tmp_path, monkeypatch):
    program = tmp_path / "dpkg-query"
    lines = ("ii |bash=5.2", "rc |gone=1", "hi |kept:amd64=2:1.0-1", "iU |half=1", "un |never=")
    program.write_text("#!/bin/sh\nprintf '" + "\\n".join(lines) + "\\n'")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    told = look.versions()
    assert told == {"versions": ["bash=5.2", "kept:amd64=2:1.0-1", "half=1"], "held": ["kept:amd64"]}


def need(path, size, setting="a_root"):
    return {"what": "the engine", "path": str(path), "bytes": str(size), "setting": setting}


def test_needs_on_one_file_system_are_summed(tmp_path, monkeypatch):
    monkeypatch.setattr(look.shutil, "disk_usage", lambda _: SimpleNamespace(free=1500))
    look.require_space([need(tmp_path, 1000)])
    look.require_space([need(tmp_path, 1000), need(tmp_path / "b", 500)])
    says = "^a file system has 1.46 KB free, but 1.95 KB are needed: 1000.00 bytes for .*a_root or b_root"
    with refuses("disk-no-space", says):
        look.require_space([need(tmp_path, 1000), need(tmp_path / "b", 1000, "b_root")])


def test_needs_on_different_file_systems_are_not_summed(tmp_path, monkeypatch):
    monkeypatch.setattr(look, "disk", lambda path: {"device": hash(path), "free": 1500})
    look.require_space([need(tmp_path, 1000), need(tmp_path / "b", 1000)])


def test_one_answer_has_all_requested_facts(tmp_path, capsys, monkeypatch):
    words = ["look", "--disk", str(tmp_path), "--used", str(tmp_path), "--account", "nobody-has-this", "--packages"]
    monkeypatch.setattr(sys, "argv", ["zorac-host", *words])
    monkeypatch.setattr(look, "packages", lambda: ["bash"])
    cli.main()
    told = json.loads(capsys.readouterr().out)
    assert set(told) == {"python", "disk", "used", "account", "packages"}
    assert told["python"] == ".".join(map(str, sys.version_info[:2]))


@pytest.mark.parametrize(("kind", "code"), [(errno.ENOSPC, 4), (errno.EDQUOT, 4), (errno.EIO, os.strerror(errno.EIO))])
def test_a_full_disk_is_a_refusal_of_any_command(capsys, monkeypatch, kind, code):
    def full():
        raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(sys, "argv", ["zorac-host", "look", "--packages"])
    monkeypatch.setattr(look, "packages", full)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert str(code) in str(ended.value.code)
    assert ('"disk-full"' in capsys.readouterr().out) == (code == 4)


def test_a_process_with_both_of_apts_locks_is_named_once(tmp_path, monkeypatch):
    locks = [tmp_path / "frontend", tmp_path / "lists", tmp_path / "missing"]
    monkeypatch.setattr(look, "_APT_LOCKS", locks)
    for lock in locks[:2]:
        lock.touch()
    assert look.apt_locks() == []
    code = (
        "import fcntl, sys; held = [open(p, 'w') for p in sys.argv[1:]]; [fcntl.lockf(f, fcntl.LOCK_EX) for f in held]"
    )
    command = [sys.executable, "-c", f"{code}; print('held', flush=True); sys.stdin.read()", *map(str, locks[:2])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        name = Path(f"/proc/{holder.pid}/comm").read_text().strip()
        assert look.apt_locks() == [f"{name}, process {holder.pid}"]
        holder.communicate("")
    assert look.apt_locks() == []
