"""A systemd in memory, for what the host's program does with it."""

from pathlib import Path

from zorac_host import activation, store
from zorac_host.service import Failure

from tests.unit.generations import UNIT


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
