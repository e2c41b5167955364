"""zorac_host/activation.py: after a kill or a power cut at any moment, it ends as if nothing had happened."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.unit.generations import OTHER, UNIT, made
from tests.unit.systemd import FakeSystemd, activate, enabled, serves, state
from zorac_host import activation, diagnosis, store


@pytest.fixture(autouse=True)
def _no_rules(monkeypatch):
    """Compiling the rules takes longer than an activation here, and their findings change nothing in it."""
    monkeypatch.setattr(diagnosis, "packed", list)


def picture(disk):
    """The content of the disk."""
    return {
        path: path.readlink() if path.is_symlink() else path.read_text() if path.is_file() else None
        for path in sorted(disk.rglob("*"))
    }


def marks(folder):
    """What differs whenever the disk's content does; much faster than reading it."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            stat = entry.stat(follow_symlinks=False)
            found.append((entry.path, stat.st_ino, stat.st_size, stat.st_mtime_ns))
            if entry.is_dir(follow_symlinks=False):
                found += marks(entry.path)
    return found


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
    """Run `what`, and return the disk's state before each executed line of the host program."""
    left, last, ours = [], None, str(Path(activation.__file__).parent)

    def tracer(frame, *_):
        if not frame.f_code.co_filename.startswith(ours):
            return None
        nonlocal last
        now = marks(disk), vars(host).copy()
        if last != now:
            last = now
            left.append((picture(disk), now[1]))
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        what()
    finally:
        sys.settrace(before)
    return left


def killed(_host):
    """Only the activation's process ends; all else continues."""


@pytest.mark.parametrize("how", [killed, FakeSystemd.power_cut])
@pytest.mark.parametrize("fault", ["none", "broken", "mute"])
@pytest.mark.parametrize(("known", "unit"), [(1, UNIT), (1, OTHER), (None, UNIT)])
def test_an_activation_killed_at_any_line_ends_correctly(host, disk, how, fault, known, unit):
    if known:
        activate(known)
    target = made(4, unit=unit).number
    setattr(host, fault, {target})
    everything = moments(disk, host, lambda: activate(target))
    assert len(everything) > 20
    for pictured, remembered in everything:
        restore(disk, pictured)
        vars(host).update(remembered)
        begun = bool(store.pending() or store.outcome(target))
        assert enabled(activation.UNIT) or not store.pending(), "after a power cut nobody would go on"
        how(host)
        while store.pending():
            activation.run()
        expected = target if begun and fault == "none" else known
        if expected:
            host.wait_until_serving(None, None, patient=True)  # if it was left to systemd
            assert serves(host, expected)
        else:
            assert (store.current(), host.runs, enabled(unit)) == (None, None, False)
        assert state(target) == (None if not begun else "proved" if fault == "none" else "failed")


@pytest.mark.parametrize("how", [killed, FakeSystemd.power_cut])
@pytest.mark.parametrize("fault", ["none", "broken", "mute"])
@pytest.mark.parametrize("target", [1, 2])
def test_after_a_kill_at_any_line_the_engine_has_the_old_or_the_new_key(host, disk, how, fault, target):
    activate(1)
    before = store.outcome(target)
    setattr(host, fault, {"new"})
    everything = moments(disk, host, lambda: activate(target, key="new"))
    assert len(everything) > 20
    for pictured, remembered in everything:
        restore(disk, pictured)
        vars(host).update(remembered)
        begun = bool(store.pending()) or store.outcome(target) != before
        # The watchdog checks only while no activation is recorded.
        assert store.pending() or host.key == store.key()
        how(host)
        while store.pending():
            activation.run()
        host.wait_until_serving(None, None, patient=True)
        if not begun:  # what was staged is not used by the next one
            activate(1, restart=True)
        done = begun and fault == "none"
        assert serves(host, target if done else 1)
        assert store.key() == ("new" if done else "old")
        assert state(1) == "proved"
        assert state(2) == ((None if not begun else "proved" if done else "failed") if target == 2 else None)
