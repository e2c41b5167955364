"""zorac_host/activation.py: killed anywhere, or cut off from its power, it ends as if it had not been."""

import shutil
import sys
from pathlib import Path

import pytest
from zorac_host import activation, store

from tests.unit.generations import OTHER, UNIT, made
from tests.unit.systemd import FakeSystemd, activate, enabled, serves, state


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
