"""zorac_host/foreign.py: a unit that zorac-deploy did not create is detected, backed up and restored with its state."""

import stat
import subprocess
from pathlib import Path

import pytest

from tests.unit.generations import OTHER, UNIT, become, made
from tests.unit.refusals import refuses
from tests.unit.systemd import activate, serves
from zorac_host import foreign, service, store

_HAND_MADE = "[Service]\nExecStart=/home/me/serve\n"


class FakeSystemctl:
    """systemctl, with its calls and the foreign unit's state; all other programs run."""

    def __init__(self):
        self.calls, self.state, self._run = [], "active", subprocess.run

    def run(self, command, **how):
        if command[0] != "systemctl":
            return self._run(command, **how)
        self.calls.append(list(command[1:]))
        return subprocess.CompletedProcess(command, 0, stdout=f"{self.state}\n", stderr="")


@pytest.fixture(autouse=True)
def systemctl(disk, monkeypatch):
    assert disk.is_dir()
    fake = FakeSystemctl()
    monkeypatch.setattr(foreign.subprocess, "run", fake.run)
    return fake


@pytest.fixture
def hand_made(disk):
    """A user's unit: with drop-ins, dependencies, enabled at boot, and one drop-in from a package."""
    files = {
        disk / "units" / UNIT: _HAND_MADE,
        disk / "units" / f"{UNIT}.d" / "limits.conf": "[Service]\nLimitCORE=0\n",
        disk / "units" / f"{UNIT}.d" / ".hidden": "mine\n",
        disk / "usr" / f"{UNIT}.d" / "package.conf": "[Service]\nNice=5\n",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (disk / "units" / UNIT).chmod(0o600)
    (disk / "units" / f"{UNIT}.d").chmod(0o711)
    for folder in ("default.target.wants", f"{UNIT}.wants"):
        (disk / "units" / folder).mkdir()
    (disk / "units" / "default.target.wants" / UNIT).symlink_to(disk / "units" / UNIT)
    (disk / "units" / f"{UNIT}.wants" / "other.service").symlink_to("/usr/lib/systemd/system/other.service")
    (disk / "units" / "llm.service").symlink_to(disk / "units" / UNIT)
    return disk / "units" / UNIT


def tree(disk):
    """Every path under the units' directories, with its type, mode, times and text."""
    found = {}
    for folder in ("units", "usr"):
        for path in sorted((disk / folder).rglob("*")):
            info = path.lstat()
            text = str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else ""
            modified = 0 if path.is_dir() else int(info.st_mtime)
            found[str(path)] = (stat.filemode(info.st_mode), info.st_uid, info.st_gid, modified, text)
    return found


def test_our_unit_and_later_drop_ins_are_not_foreign(disk):
    become(made(1))
    (disk / "units" / f"{UNIT}.d").mkdir()
    (disk / "units" / f"{UNIT}.d" / "later.conf").write_text("[Service]\n")
    assert foreign.look(UNIT) == []
    # Without the link to the current generation, as during a removal, its text still identifies it.
    store.CURRENT.unlink()
    assert foreign.look(UNIT) == []


def test_a_host_without_the_unit_has_nothing_foreign():
    assert foreign.look(UNIT) == []
    assert not foreign.keep(UNIT)
    assert not foreign.STORE.exists()


@pytest.mark.parametrize("where", ["units", "usr"])
def test_every_kind_of_definition_is_found(disk, where):
    (disk / where / f"{UNIT}.d").mkdir(parents=True)
    drop_in = disk / where / f"{UNIT}.d" / "limits.conf"
    drop_in.write_text("[Service]\n")
    assert foreign.look(UNIT) == [drop_in]
    (disk / where / UNIT).symlink_to("/dev/null")  # masked
    assert foreign.look(UNIT) == [disk / where / UNIT, drop_in]
    assert foreign.look(OTHER) == []


def test_a_unit_that_replaces_ours_is_foreign(disk):
    become(made(1))
    (disk / "units" / UNIT).write_text(_HAND_MADE)
    assert foreign.look(UNIT) == [disk / "units" / UNIT]


def test_the_refusal_names_the_files_and_the_command(hand_made):
    refusal = foreign.refusal(UNIT, foreign.look(UNIT))
    message = str(refusal)
    assert refusal.refusal == "unit-foreign"
    assert message.startswith(f"zorac-deploy did not create {UNIT}, which is running: {hand_made}, ")
    assert "package.conf" in message
    assert "zorac-deploy up --replace-unit" in message


def test_nothing_of_a_replaced_unit_is_left_and_all_of_it_is_restored(disk, hand_made, systemctl):
    before = tree(disk)
    assert foreign.keep(UNIT)
    assert tree(disk) == before
    assert foreign.look(UNIT) == []
    assert stat.S_IMODE(foreign.STORE.stat().st_mode) == 0o700

    foreign.remove(UNIT)
    left = tree(disk)
    assert [path for path in left if UNIT in path and "/usr/" not in path] == [
        f"{disk}/units/{UNIT}.d",
        f"{disk}/units/{UNIT}.d/package.conf",
    ]
    assert (disk / "units" / f"{UNIT}.d" / "package.conf").readlink() == Path("/dev/null")
    assert not (disk / "units" / "llm.service").is_symlink()

    become(made(1))
    foreign.remove(UNIT)  # again, as after a kill
    assert foreign.look(UNIT) == []
    hand_made.unlink()
    assert foreign.restore(UNIT)
    assert tree(disk) == before
    assert systemctl.calls[-2:] == [["daemon-reload"], ["start", "--no-block", UNIT]]
    assert not foreign.STORE.exists()
    assert not foreign.restore(UNIT)


def test_the_cache_of_a_replaced_unit_is_not_ours_to_use_or_remove(disk, hand_made):
    theirs = disk / "cache" / "vllm"
    theirs.mkdir(parents=True)
    (theirs / "compiled").write_text("theirs")
    foreign.keep(UNIT)
    foreign.remove(UNIT)
    assert not theirs.exists()
    theirs.mkdir()
    (theirs / "compiled").write_text("ours")
    foreign.restore(UNIT)
    assert hand_made.is_file()
    assert [path.read_text() for path in (disk / "cache").rglob("compiled")] == ["theirs"]


def test_a_unit_of_a_package_is_overridden_and_may_be_again(disk):
    (disk / "usr").mkdir()
    (disk / "usr" / UNIT).write_text(_HAND_MADE)
    assert foreign.keep(UNIT)
    foreign.remove(UNIT)
    # As after a switch to an engine of another kind: ours is gone, and the package's exists and was accepted.
    assert foreign.look(UNIT) == []
    assert (disk / "usr" / UNIT).read_text() == _HAND_MADE
    assert foreign.restore(UNIT)
    assert foreign.look(UNIT) == [disk / "usr" / UNIT]


def test_later_changes_by_the_user_are_not_overwritten(hand_made):
    foreign.keep(UNIT)
    hand_made.write_text("[Service]\nExecStart=/home/me/new\n")
    foreign.restore(UNIT)
    assert hand_made.read_text() == "[Service]\nExecStart=/home/me/new\n"


def test_a_second_unit_is_not_stored_over_the_first(hand_made):
    foreign.keep(UNIT)
    foreign.remove(UNIT)
    hand_made.write_text("[Service]\nExecStart=/home/me/second\n")
    with refuses("unit-foreign", r"An earlier one is already stored in .*Move this one away by hand"):
        foreign.keep(UNIT)
    assert hand_made.read_text() == "[Service]\nExecStart=/home/me/second\n"


@pytest.mark.usefixtures("host")
def test_an_activation_refuses_a_foreign_unit_and_accepts_a_stored_one(disk, hand_made):
    with refuses("unit-foreign"):
        activate(1)
    assert (store.pending(), hand_made.read_text()) == ({}, _HAND_MADE)
    foreign.keep(UNIT)
    assert activate(1)
    assert service.settled(store.generation(1))
    assert "LimitCORE" not in "".join(path.read_text() for path in (disk / "units" / f"{UNIT}.d").iterdir())


@pytest.mark.usefixtures("hand_made")
@pytest.mark.parametrize("fault", ["broken", "mute"])
def test_if_the_first_fails_the_replaced_unit_is_restored(host, disk, systemctl, fault):
    (disk / "units" / "multi-user.target.wants").mkdir()
    before = tree(disk)
    foreign.keep(UNIT)
    getattr(host, fault).add(1)
    assert not activate(1)
    assert tree(disk) == before
    assert ["start", "--no-block", UNIT] in systemctl.calls


def test_a_unit_of_another_engines_name_is_neither_stopped_nor_removed(host, disk):
    made(4, unit=OTHER)
    assert activate(1)
    assert activate(4)
    (disk / "units" / UNIT).write_text(_HAND_MADE)
    assert activate(4, restart=True)
    assert (disk / "units" / UNIT).read_text() == _HAND_MADE
    (disk / "units" / UNIT).unlink()
    assert serves(host, 4)


@pytest.mark.usefixtures("hand_made")
def test_a_restored_unit_that_did_not_run_is_not_started(systemctl):
    systemctl.state = "inactive"
    foreign.keep(UNIT)
    foreign.remove(UNIT)
    foreign.restore(UNIT)
    assert [call for call in systemctl.calls if "start" in call] == []
