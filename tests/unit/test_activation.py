"""zorac_host/activation.py: an activation ends with an engine proved, wherever it is killed on the way."""

import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from zorac_host import activation, proof, service, store
from zorac_host.service import Failure

from tests.unit.generations import UNIT, become, made


class FakeSystemd:
    """One engine's unit in memory, with what systemd keeps of it: what was loaded, what runs, and whether it serves."""

    def __init__(self):
        self.state, self.runs, self.loaded = "inactive", None, ""
        self.broken, self.mute, self.stopped, self.lines = set(), set(), 0, "ERROR out of memory\n"

    def systemctl(self, *words):
        if words == ("daemon-reload",):
            file = store.UNITS / UNIT
            self.loaded = file.read_text() if file.exists() else ""
        return True

    def shown(self, _):
        return {"ActiveState": self.state}

    def running(self, _):
        return self.runs

    def processes(self, _):
        return {self.runs} if self.runs else set()

    def stop(self, _unit, _idle):
        self.stopped += self.runs is not None
        self.state, self.runs = "inactive", None

    def start(self, _):
        if self.state == "inactive" and self.loaded:
            self.state, self.runs = "activating", int(Path(self.loaded.strip()).name)

    def wait_until_serving(self, *_):
        if self.state == "inactive" or self.runs in self.broken:
            self.state, self.runs = "failed", None
            raise Failure("the engine ended before it answered (exit-code)")
        self.state = "active"

    def prove(self, about, _):
        if self.state != "active" or about["number"] != self.runs or self.runs in self.mute:
            raise Failure("the reply is '!!!!', which is no text")

    def power_cut(self):
        """The host boots again: what is enabled is started, from the files that are there."""
        self.state, self.runs = "inactive", None
        self.systemctl("daemon-reload")
        if enabled(UNIT):
            self.start(UNIT)


def enabled(unit):
    return (store.UNITS / "multi-user.target.wants" / unit).is_symlink()


@pytest.fixture
def host(disk, monkeypatch):
    """The fake, under three real generations, of which none was activated."""
    host = FakeSystemd()
    for name in ("systemctl", "shown", "running", "processes", "stop", "start", "wait_until_serving"):
        monkeypatch.setattr(service, name, getattr(host, name))
    for name in ("load", "wait_for_memory", "require_free_port", "stay_if_host_stops"):
        monkeypatch.setattr(service, name, lambda *_: None)
    monkeypatch.setattr(service, "cursor", lambda: "")
    monkeypatch.setattr(service, "journal", lambda *_: host.lines)
    monkeypatch.setattr(proof, "prove", host.prove)
    monkeypatch.setattr(activation, "_LOCK", disk / "lock")
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of disks are made here, and none loses its power
    for number in (1, 2, 3):
        made(number)
    return host


def activate(number, restart=False):
    activation.begin(number, "me", restart)
    return activation.run()


def serves(host, number):
    """Whether the host serves that generation, and is in order."""
    assert store.pending() == {}
    assert list(store.ETC.glob(".*")) + list(store.UNITS.glob(".*")) == []
    return (
        activation.settled(store.generation(number))
        and (host.state, host.runs, store.current().number) == ("active", number, number)
        and enabled(UNIT)
    )


def state(number):
    return store.outcome(number).get("state")


def test_the_first_is_proved_and_enabled(host):
    assert activate(1)
    assert serves(host, 1)
    assert set(store.outcome(1)["seconds"]) == {"stop", "memory", "start", "proof", "silent"}


@pytest.mark.parametrize("fault", ["broken", "mute"])
def test_where_the_first_fails_nothing_is_left_enabled(host, fault):
    getattr(host, fault).add(1)
    assert not activate(1)
    assert (store.current(), host.runs, enabled(UNIT), store.pending()) == (None, None, False, {})
    told = store.outcome(1)
    assert (told["state"], told["previous"], told["lines"]) == ("failed", None, ["ERROR out of memory"])
    assert store.generation(1).journal.read_text() == host.lines


@pytest.mark.parametrize("fault", ["broken", "mute"])
def test_where_the_second_fails_the_first_serves_again(host, fault):
    activate(1)
    getattr(host, fault).add(2)
    assert activate(2)
    assert serves(host, 1)
    told = store.outcome(2)
    assert (told["state"], told["previous"], told["back_failure"]) == ("failed", 1, "")
    assert told["reason"] in (
        "the engine ended before it answered (exit-code)",
        "the reply is '!!!!', which is no text",
    )


def test_the_way_back_is_prepared_before_the_engine_is_stopped(host, monkeypatch):
    activate(1)
    prepared = []
    monkeypatch.setattr(service, "stop", lambda *how: (prepared.extend(store.ETC.glob(".*")), host.stop(*how)))
    activate(2)
    assert {path.name for path in prepared} == {".generation-1", ".generation-2"}


def test_one_that_failed_is_not_tried_again_after_a_kill_on_the_way_back(host, monkeypatch):
    activate(1)
    host.broken.add(2)
    started = []

    def start(unit):
        host.start(unit)
        started.append(host.runs)
        if started == [2, 1]:
            sys.exit("killed")

    monkeypatch.setattr(service, "start", start)
    with pytest.raises(SystemExit):
        activate(2)
    assert activation.run()
    assert serves(host, 1)
    assert started == [2, 1]
    assert store.outcome(2)["reason"] == "the engine ended before it answered (exit-code)"


def test_where_both_fail_it_is_said_and_the_first_is_tried_at_boot(host):
    activate(1)
    host.broken |= {1, 2}
    assert not activate(2)
    assert (host.runs, store.current().number, enabled(UNIT), store.pending()) == (None, 1, True, {})
    assert store.outcome(2)["back_failure"] == "the engine ended before it answered (exit-code)"


def test_the_way_back_is_to_the_last_good_one_if_the_current_one_is_not_proved(host):
    activate(2)
    activate(1)
    become(store.generation(3), "failed")
    host.broken.add(3)
    assert activate(3)
    assert serves(host, 1)
    assert store.outcome(3)["previous"] == 1


def test_what_runs_and_is_proved_is_not_stopped_unless_that_is_asked_for(host):
    activate(1)
    assert activate(1)
    assert host.stopped == 0
    assert activate(1, restart=True)
    assert host.stopped == 1
    assert serves(host, 1)


def picture(disk):
    """All that is on the disk."""
    return {
        path: path.readlink() if path.is_symlink() else path.read_text() if path.is_file() else None
        for path in sorted(disk.rglob("*"))
    }


def restore(disk, pictured):
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path, held in pictured.items():
        if held is None:
            path.mkdir()
        elif isinstance(held, Path):
            path.symlink_to(held)
        else:
            path.write_text(held)


def moments(disk, host, what):
    """Do `what`, and return what a kill would leave behind before each line of the host's program that is run."""
    left, ours = [], str(Path(activation.__file__).parent)

    def tracer(frame, *_):
        if not frame.f_code.co_filename.startswith(ours):
            return None
        now = picture(disk), vars(host).copy()
        if not left or left[-1] != now:
            left.append(now)
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        what()
    finally:
        sys.settrace(before)
    return left


def killed(_host):
    """Only the activation's process ends; all else goes on."""


@pytest.mark.parametrize("how", [killed, FakeSystemd.power_cut])
@pytest.mark.parametrize("fault", ["none", "broken", "mute"])
@pytest.mark.parametrize("known", [1, None])
def test_killed_at_any_line_it_ends_as_if_it_had_not_been(host, disk, how, fault, known):
    if known:
        activate(known)
    setattr(host, fault, {2})
    everything = moments(disk, host, lambda: activate(2))
    assert len(everything) > 20
    for pictured, remembered in everything:
        restore(disk, pictured)
        vars(host).update(remembered)
        begun = bool(store.pending() or store.outcome(2))
        assert enabled(activation.UNIT) or not store.pending(), "after a power cut nobody would go on"
        how(host)
        while store.pending():
            activation.run()
        expected = 2 if begun and fault == "none" else known
        if expected:
            host.wait_until_serving()  # where it was left to systemd
            assert serves(host, expected)
        else:
            assert (store.current(), host.runs, enabled(UNIT)) == (None, None, False)
        assert state(2) == (None if not begun else "proved" if fault == "none" else "failed")


def test_a_start_that_kills_the_host_is_given_up(host, monkeypatch):
    activate(1)

    def cut(_unit):
        host.power_cut()
        raise SystemExit

    activation.begin(2, "me")
    monkeypatch.setattr(service, "start", cut)
    for _ in range(3):
        host.runs = None
        with pytest.raises(SystemExit):
            activation.run()
    monkeypatch.setattr(service, "start", host.start)
    assert activation.run()
    assert serves(host, 1)
    assert store.outcome(2)["reason"] == "the host or the activation ended 3 times while it was started"


def test_on_a_full_disk_the_engine_that_runs_is_not_stopped(host, monkeypatch):
    activate(1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    assert activate(2)
    assert (host.stopped, serves(host, 1)) == (0, True)
    assert store.outcome(2)["reason"].startswith("1 MiB are free under ")


def test_on_a_full_disk_the_one_that_runs_can_be_started_anew(host, monkeypatch):
    activate(1)
    activate(2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    assert activate(2, restart=True)
    assert serves(host, 2)


def test_a_disk_that_fills_up_meanwhile_is_a_failure_too(host, monkeypatch):
    activate(1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "set_outcome", full)
    host.broken.add(2)
    assert activate(2)
    assert serves(host, 1)


def test_only_one_at_a_time(host):
    activation.begin(1, "me@desk, zorac-deploy up")
    with pytest.raises(activation.Busy, match="generation 1 is being activated, for me@desk, zorac-deploy up"):
        activation.begin(2, "you")
    activation.run()
    assert serves(host, 1)


@pytest.mark.usefixtures("host")
def test_an_unknown_generation_is_refused_with_those_there_are():
    with pytest.raises(activation.NoSuchGeneration, match=r"no generation 4. There are: 1, 2, 3."):
        activation.begin(4, "me")
    assert store.pending() == {}


@pytest.mark.usefixtures("host")
def test_without_a_record_there_is_nothing_to_do():
    assert activation.run()
    assert store.current() is None


def test_only_a_persons_activation_forgets_what_the_watchdog_counted(host):
    for by, left in ((activation.WATCHDOG, {"helped": [1.0]}), ("me", {})):
        store.set_watch({"helped": [1.0]})
        activation.begin(1, by, restart=True)
        activation.run()
        assert store.watch() == left
    assert serves(host, 1)
