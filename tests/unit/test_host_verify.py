import errno
import grp
import io
import json
import os
import pwd
import time
from pathlib import Path

import pytest

from tests.unit.generations import become, made
from zorac_host import cli, kinds, restore, service, store, verify

ME = pwd.getpwuid(os.getuid()).pw_name
MINE = grp.getgrgid(os.getgid()).gr_name


@pytest.fixture
def recorded(disk, monkeypatch):
    """Write a document of these parts as the one applied."""
    monkeypatch.setattr(verify, "DOCUMENT", disk / "state.json")
    monkeypatch.setattr(restore, "SET_ASIDE", disk / "set-aside")

    def write(*parts, **about):
        document = {"schema": 1, "inputs": "1" * 64, "tool": "0.1.0", "parts": [{"owner": "r", **p} for p in parts]}
        verify.apply({**document, **about})

    return write


@pytest.fixture
def key(disk):
    path = disk / "key"
    path.write_text("secret")
    path.chmod(0o600)
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
    return {"kind": "file", "path": str(path), "mode": "0600", "user": ME, "group": MINE, "sha256": digest}


def found():
    return [(each["part"], each["aspect"]) for each in verify.look(deep=False)["differences"]]


def heal():
    return restore.restore(check=False)["restored"]


def test_an_unchanged_host_has_no_differences(recorded, key):
    recorded(key)
    told = verify.look(deep=False)
    assert (told["inputs"], told["differences"], told["unusable"]) == ("1" * 64, [], "")


@pytest.mark.parametrize(
    ("act", "aspect"),
    [
        (lambda path: path.chmod(0o644), "mode"),
        (lambda path: path.write_text("other!"), "content"),
        (lambda path: path.unlink(), "type"),
        (lambda path: (path.unlink(), path.mkdir()), "type"),
        (lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")), "type"),
    ],
)
def test_a_changed_file(recorded, key, act, aspect):
    recorded(key)
    act(Path(key["path"]))
    assert found() == [(key["path"], aspect)]


def test_a_changed_mode_is_restored(recorded, key):
    recorded(key)
    Path(key["path"]).chmod(0o644)
    assert heal() == [f"{key['path']}: mode 0600"]
    assert found() == []


def test_files_added_to_our_directory_are_moved_aside(recorded, disk):
    (disk / "ours").mkdir(mode=0o755)
    (disk / "ours/a").touch()
    path = str(disk / "ours")
    recorded({"kind": "folder", "path": path, "names": ["a"], "mode": "0755"})
    (disk / "ours/evil").mkdir()
    (disk / "ours/evil/x").write_text("x")
    assert found() == [(path, "added")]
    assert heal() == [f"{path}/evil set aside"]
    assert found() == []
    assert [file.read_text() for file in (disk / "set-aside").rglob("x")] == ["x"]


def test_a_changed_link(recorded, disk):
    link = disk / "link"
    link.symlink_to(disk)
    recorded({"kind": "link", "path": str(link), "target": str(disk)})
    assert found() == []
    link.unlink()
    link.symlink_to("/nowhere")
    assert found() == [(str(link), "target")]


def test_a_user(recorded):
    user = pwd.getpwnam("nobody")
    group = grp.getgrgid(user.pw_gid).gr_name
    part = {"kind": "user", "name": "nobody", "group": group, "home": user.pw_dir, "shell": user.pw_shell}
    recorded(part)
    assert found() == []
    recorded({**part, "shell": "/bin/bash"}, {**part, "name": "no-such-user"})
    assert found() == [("nobody", "shell"), ("no-such-user", "account")]


@pytest.mark.parametrize(("others", "differences"), [([], []), ([0], [("nobody", "groups")])])
def test_a_user_in_another_group(recorded, monkeypatch, others, differences):
    user = pwd.getpwnam("nobody")
    part = {"kind": "user", "name": "nobody", "group": kinds.look.group_name(user.pw_gid), "groups": []}
    recorded({**part, "home": user.pw_dir, "shell": user.pw_shell})
    monkeypatch.setattr(os, "getgrouplist", lambda *_: [user.pw_gid, *others])
    assert found() == differences


def shown(monkeypatch, **texts):
    """Make programs print these texts."""
    monkeypatch.setattr(kinds, "_output", lambda *command: texts[command[0].replace("-", "_")])


def test_packages(recorded, monkeypatch):
    shown(monkeypatch, dpkg_query="a\t1\thold\tinstalled\nb\t1\tinstall\tinstalled\nc\t1\tdeinstall\tconfig-files\n")
    recorded(
        {"kind": "package", "names": ["a"], "version": "1*", "hold": True},
        {"kind": "package", "names": ["b"], "version": "2", "hold": True},
        {"kind": "package", "names": ["c"]},
        {"kind": "package", "names": ["d"]},
    )
    assert found() == [("b", "version"), ("b", "hold"), ("c", "state"), ("d", "state")]


UNIT = {"kind": "unit", "name": "vllm.service", "path": "/etc/systemd/system/vllm.service", "enabled": True,
        "active": True, "properties": {"ProtectSystem": "strict"}}  # fmt: skip
GOOD = {"Id": "vllm.service", "LoadState": "loaded", "ActiveState": "active",
        "FragmentPath": "/etc/systemd/system/vllm.service", "DropInPaths": "/run/systemd/system/service.d/lxc.conf",
        "NeedDaemonReload": "no", "ProtectSystem": "strict"}  # fmt: skip


def systemctl(monkeypatch, properties, at_boot="enabled"):
    """Let systemd know one unit, with the result of `properties`."""

    def output(_program, verb, *_):
        if verb == "is-enabled":
            return f"{at_boot}\n"
        return "".join(f"{name}={value}\n" for name, value in properties().items())

    monkeypatch.setattr(kinds, "_output", output)


@pytest.mark.parametrize(
    ("change", "aspect"),
    [
        ({}, None),
        ({"LoadState": "masked"}, "loaded"),
        ({"ActiveState": "failed"}, "state"),
        ({"FragmentPath": "/run/systemd/system/vllm.service"}, "unit file"),
        ({"DropInPaths": "/etc/systemd/system/vllm.service.d/zz.conf"}, "drop-ins"),
        ({"NeedDaemonReload": "yes"}, "daemon-reload"),
        ({"ProtectSystem": "no"}, "ProtectSystem"),
    ],
)
def test_a_unit(recorded, monkeypatch, change, aspect):
    systemctl(monkeypatch, lambda: GOOD | change)
    recorded(UNIT)
    assert found() == ([("vllm.service", aspect)] if aspect else [])


def test_a_unit_without_its_link_before_a_daemon_reload(recorded, monkeypatch):
    systemctl(monkeypatch, lambda: GOOD | {"UnitFileState": "enabled"}, at_boot="disabled")
    recorded(UNIT)
    assert found() == [("vllm.service", "at boot")]


def test_units_unknown_to_systemd(recorded, monkeypatch):
    shown(monkeypatch, systemctl="")
    recorded(UNIT)
    assert found() == [("vllm.service", "loaded")]


def test_gpus(recorded, monkeypatch):
    shown(monkeypatch, nvidia_smi="GPU-1, RTX 4090, 24564, 580.95, 450.00, Enabled\n")
    card = {"kind": "card", "uuid": "GPU-1", "expected": {"name": "RTX 4090", "power.limit": 450}}
    recorded(card)
    assert found() == []
    recorded({**card, "expected": {"power.limit": 350, "persistence_mode": "Disabled"}}, {**card, "uuid": "GPU-2"})
    assert found() == [("GPU-1", "power.limit"), ("GPU-1", "persistence_mode"), ("GPU-2", "GPU")]


@pytest.mark.usefixtures("host")
def test_the_current_generation(recorded):
    part = {"kind": "generation", "number": 2, "digest": "d"}
    become(made(4, digest="d"))
    recorded({**part, "number": 4})
    assert found() == []
    recorded(part)
    assert found() == [("2", "current")]
    recorded({**part, "number": 4, "digest": "e"})
    assert found() == [("4", "digest")]


def test_an_unknown_kind_is_a_difference(recorded):
    recorded({"kind": "wormhole", "path": "/x"})
    assert found() == [("/x", "kind")]


def test_a_failed_check_is_a_difference(recorded, monkeypatch):
    monkeypatch.setitem(kinds.LOOKS, "file", lambda *_: 1 / 0)
    recorded({"kind": "file", "path": "/x"})
    assert found() == [("/x", "look")]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "no desired state is recorded"),
        ("", "cannot read"),
        ('{"schema": 1, "parts": [', "cannot read"),
        ("[]", "is not a desired state"),
        ('{"schema": 1, "parts": 3}', "is not a desired state"),
        ('{"schema": 2, "parts": []}', "has schema 2"),
        ('{"schema": 1, "parts": [3]}', "is not a desired state"),
        ('{"schema": 1, "parts": [{"kind": "file"}]}', "is not a desired state"),
        ("[" * 100_000, "cannot read"),
        ("\udcff", "cannot read"),
        ('{"schema": 1, "parts": [], "machine_id": "copied"}', "another machine"),
    ],
)
@pytest.mark.usefixtures("recorded")
def test_an_unusable_record(text, why):
    if text is not None:
        verify.DOCUMENT.write_bytes(text.encode("utf-8", "surrogateescape"))
    told = verify.look(deep=False)
    assert why in told["unusable"]
    assert told["inputs"] == ""


def test_a_starting_run_removes_the_inputs(recorded, key):
    recorded(key)
    restore.restore(check=False, begin=True)
    assert verify.look(deep=False)["inputs"] == ""
    assert json.loads(verify.DOCUMENT.read_text())["parts"]


def test_a_host_compared_a_moment_ago_is_not_compared_again(recorded, key):
    recorded(key)
    Path(key["path"]).chmod(0o644)  # what nobody can rule out: the end of the run finds it
    assert restore.restore(check=False, begin=True, intact=True)["restored"] == []
    assert verify.look(deep=False)["inputs"] == ""
    assert verify.apply(json.loads(document(key)))["differences"][0]["aspect"] == "mode"


@pytest.mark.parametrize(("asked", "replied"), [("1" * 64, True), ("2" * 64, False), ("", False)])
def test_the_engine_is_asked_only_for_the_recorded_inputs(recorded, asked, replied):
    recorded()
    assert ("reply" in verify.look(deep=False, inputs=asked)) == replied


def test_an_activation_in_progress_is_in_the_answer(recorded):
    recorded()
    store.set_pending({"target": 2, "by": "somebody"})
    assert verify.look(deep=False)["pending"]["target"] == 2


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command that fails. Return its message, and the refusal, if it answers with one."""

    def ran(*words, given=""):
        monkeypatch.setattr("sys.argv", ["zorac-host", *words])
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr().out
        return ended.value.code, json.loads(printed)["refusal"] if printed else None

    return ran


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"schema": 2, "parts": []}', "the document on standard input has schema 2, but this program reads 1"),
        ('{"schema": 1, "parts": [{', "cannot read the document on standard input"),
        ("", "cannot read the document on standard input"),
    ],
)
def test_an_invalid_document_is_not_recorded(recorded, run, text, why):
    recorded()
    before = verify.DOCUMENT.read_bytes()
    assert run("apply", given=text)[0].startswith(why)
    assert verify.DOCUMENT.read_bytes() == before


def document(*parts):
    return json.dumps({"schema": 1, "inputs": "2" * 64, "parts": [{"owner": "r", **part} for part in parts]})


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_leaves_the_old_document_without_its_inputs(recorded, key, disk, run, monkeypatch, number):
    recorded(key)
    restore.restore(check=False, begin=True)

    def full(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    code, refusal = run("apply", given=document(key))
    assert (code, refusal["id"]) == (4, "disk-full")
    assert refusal["message"].startswith(f"[Errno {number}] {os.strerror(number)}: '{verify.DOCUMENT}'. ")
    assert verify.look(deep=False)["inputs"] == ""
    assert sorted(path.name for path in disk.iterdir() if path.is_file()) == ["key", "state.json"]


def test_on_a_full_disk_nothing_is_restored(recorded, key, run, monkeypatch):
    recorded(key)
    Path(key["path"]).chmod(0o644)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert run("restore")[1]["id"] == "disk-full"
    assert found() == [(key["path"], "mode")]


def test_a_killed_restore_leaves_the_document_invalid(recorded, key, monkeypatch):
    recorded(key)
    Path(key["path"]).chmod(0o644)

    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(restore, "_access", killed)
    with pytest.raises(KeyboardInterrupt):
        heal()
    assert verify.look(deep=False)["inputs"] == ""


def test_a_document_from_the_future_is_valid(recorded, key, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 4e9)
        recorded(key)
    told = verify.look(deep=False)
    assert (told["at"], told["inputs"], told["differences"]) == (4_000_000_000, "1" * 64, [])


@pytest.fixture
def drop_in(disk, recorded, monkeypatch):
    """An engine that started at `started`, by the clock and by the time since boot, and a drop-in."""
    become(made(4, digest="d"))
    path = disk / "vllm.service.d/zz.conf"
    path.parent.mkdir()
    engine = {"InvocationID": "first", "ActiveState": "active"}
    monkeypatch.setattr(service, "shown", lambda _: engine)

    systemctl(monkeypatch, lambda: GOOD | {"DropInPaths": str(path) if path.exists() else ""})

    def add(started):
        recorded(UNIT)
        path.touch()
        monkeypatch.setattr(service, "started", lambda _: started)
        return restore.restore(check=False)["differences"]

    return add, engine


def seconds_ago(number, clock_was_ahead_by=0):
    return time.time() - number + clock_was_ahead_by, time.monotonic() - number


@pytest.mark.parametrize(
    ("started", "restart"),
    [
        (seconds_ago(1000), False),
        (seconds_ago(-1000), True),  # the drop-in existed at the start
        (seconds_ago(1000, clock_was_ahead_by=86400), True),  # not certain
        (seconds_ago(1000, clock_was_ahead_by=-86400), True),
    ],
)
@pytest.mark.usefixtures("host")
def test_an_engine_is_restarted_unless_its_drop_in_is_certainly_newer(drop_in, started, restart):
    add, _ = drop_in
    assert [each["aspect"] for each in add(started)] == (["process"] if restart else [])


@pytest.mark.usefixtures("host")
def test_a_restart_is_detected_without_the_clock(drop_in, monkeypatch):
    add, engine = drop_in
    assert add(seconds_ago(-1000))
    for now in (0.0, 4e9):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        assert found() == [("4", "process")]
    engine["InvocationID"] = "second"
    assert found() == []


@pytest.mark.usefixtures("host")
def test_a_start_during_the_restore_does_not_count(drop_in, monkeypatch):
    add, engine = drop_in
    set_aside = restore._set_aside
    monkeypatch.setattr(restore, "_set_aside", lambda path: (set_aside(path), engine.update(InvocationID="second")))
    assert add(seconds_ago(-1000))
    assert found() == [("4", "process")]


def test_an_unrestorable_part_stays_a_difference_and_does_not_stop_the_rest(recorded, key, disk, monkeypatch):
    other = {**key, "path": str(disk / "other")}
    (disk / "other").write_text("secret")
    (disk / "other").chmod(0o600)
    recorded(key, other)
    for part in (key, other):
        Path(part["path"]).chmod(0o644)
    chmod = Path.chmod

    def immutable(path, mode):
        if str(path) == key["path"]:
            raise PermissionError(1, "Operation not permitted")
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", immutable)
    told = restore.restore(check=False)
    assert [line.split(":")[0] for line in told["restored"]] == [other["path"]]
    assert [each["part"] for each in told["differences"]] == [key["path"]]
    assert verify.read()["inputs"] == ""
