"""zorac_host/activation.py: killed anywhere, or cut off from its power, it ends as if it had not been."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.unit.generations import OTHER, UNIT, made
from tests.unit.systemd import FakeSystemd, activate, enabled, serves, state
from zorac_host import activation, store


def picture(disk):
    """All that is on the disk."""
    return {
        path: path.readlink() if path.is_symlink() else path.read_text() if path.is_file() else None
        for path in sorted(disk.rglob("*"))
    }


def marks(folder):
    """What differs where something on the disk does; far quicker than reading it."""
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
    """Do `what`, and return what a kill would leave behind before each line of the host's program that is run."""
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
    """Only the activation's process ends; all else goes on."""


@pytest.mark.parametrize("how", [killed, FakeSystemd.power_cut])
@pytest.mark.parametrize("fault", ["none", "broken", "mute"])
@pytest.mark.parametrize(("known", "unit"), [(1, UNIT), (1, OTHER), (None, UNIT)])
def test_killed_at_any_line_it_ends_as_if_it_had_not_been(host, disk, how, fault, known, unit):
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
            host.wait_until_serving()  # where it was left to systemd
            assert serves(host, expected)
        else:
            assert (store.current(), host.runs, enabled(unit)) == (None, None, False)
        assert state(target) == (None if not begun else "proved" if fault == "none" else "failed")


@pytest.mark.parametrize("how", [killed, FakeSystemd.power_cut])
@pytest.mark.parametrize("fault", ["none", "broken", "mute"])
@pytest.mark.parametrize("target", [1, 2])
def test_killed_at_any_line_the_key_fits_the_engine_and_is_the_old_one_or_the_new_one(host, disk, how, fault, target):
    activate(1)
    before = store.outcome(target)
    setattr(host, fault, {"new"})
    everything = moments(disk, host, lambda: activate(target, key="new"))
    assert len(everything) > 20
    for pictured, remembered in everything:
        restore(disk, pictured)
        vars(host).update(remembered)
        begun = bool(store.pending()) or store.outcome(target) != before
        # The watchdog looks only while no activation is on record.
        assert store.pending() or host.key == store.key()
        how(host)
        while store.pending():
            activation.run()
        host.wait_until_serving()
        if not begun:  # and what was staged is of no use to the next
            activate(1, restart=True)
        done = begun and fault == "none"
        assert serves(host, target if done else 1)
        assert store.key() == ("new" if done else "old")
        assert state(1) == "proved"
        assert state(2) == ((None if not begun else "proved" if done else "failed") if target == 2 else None)
