"""A fake systemd in memory, for the host program."""

from pathlib import Path

from tests.unit.generations import OTHER, UNIT
from zorac_host import activation, proof, service, store
from zorac_host.service import Failure


class FakeSystemd:
    """The engines' units in memory, with systemd's state of them: what is loaded, what runs, and whether it serves.

    Two engines at once would not fit on one GPU: starting a second one is an error here.
    """

    def __init__(self):
        self.unit, self.state, self.runs, self.loaded = UNIT, "inactive", None, {}
        self.key = None  # a credential: read at the start
        self.restarted = False  # by systemd, since the last start or reset
        self.broken, self.mute, self.open, self.stopped, self.lines = set(), set(), set(), 0, "ERROR out of memory\n"

    def systemctl(self, *words):
        if words == ("daemon-reload",):
            self.loaded = {file.name: file.read_text() for file in store.UNITS.glob("*.service")}
        return True

    def shown(self, unit):
        return {"ActiveState": self.state if unit == self.unit else "inactive"}

    def running(self, unit):
        return self.runs if unit == self.unit else None

    def processes(self, unit):
        return {self.runs} if self.running(unit) else set()

    def stop(self, unit, _idle):
        if unit == self.unit:
            self.stopped += self.runs is not None
            self.state, self.runs = "inactive", None

    def start(self, unit):
        assert unit == self.unit or self.runs is None
        if self.runs is None and unit in self.loaded:
            self.unit, self.state, self.runs = unit, "activating", int(Path(self.loaded[unit].strip()).name)
            self.key = store.KEY_FILE.read_text()
            self.restarted = False

    def wait_until_serving(self, _unit, _limit, patient):
        tried = self.restarted and not patient and self.state != "active"
        if tried or self.state == "inactive" or {self.runs, self.key} & self.broken:
            self.state, self.runs = "failed", None
            raise Failure("the engine ended before it answered (exit-code)")
        self.state = "active"

    def prove(self, about, _, closed):
        if self.state != "active" or about["number"] != self.runs or {self.runs, self.key} & self.mute:
            raise Failure("the reply is '!!!!', which is no text")
        if self.key != store.KEY_FILE.read_text():
            raise proof.KeyRefused("/v1/models")
        if closed and self.runs in self.open:
            raise proof.Open("POST /invocations answered 200 without the key, and 401 is needed")

    def power_cut(self):
        """The host boots again: enabled units are started from the existing files."""
        self.state, self.runs = "inactive", None
        self.systemctl("daemon-reload")
        for unit in filter(enabled, self.loaded):
            self.start(unit)


def enabled(unit):
    return (store.UNITS / "multi-user.target.wants" / unit).is_symlink()


def activate(number, restart=False, key=None):
    """Activate a generation as the command does, with a new key if given; return whether an engine is verified."""
    activation.begin(number, "me", restart, staged(key) if key else None)
    return activation.run()


def staged(key):
    path = store.ETC / "api-key.staged"
    path.write_text(key)
    return path


def serves(host, number):
    """Whether the host serves that generation, in a consistent state."""
    assert store.pending() == {}
    assert list(store.ETC.glob(".*")) + list(store.UNITS.glob(".*")) == []
    return (
        service.settled(store.generation(number))
        and host.key == store.KEY_FILE.read_text()
        and (host.state, host.runs, store.current().number) == ("active", number, number)
        and [unit for unit in (UNIT, OTHER) if enabled(unit)] == [host.unit]
        and {path.name for path in store.UNITS.glob("*.service")} == {host.unit}
    )


def state(number):
    return store.outcome(number).get("state")
