"""zorac_deploy/growth.py: bytes and per cent of a long task, by how much the disk has filled."""

import subprocess
import threading
import time

import pytest

from zorac_deploy import growth
from zorac_deploy.runner import Step

GIB = 2**30
SPACE = {"engine_space": {"what": "the engine", "path": "/opt", "bytes": 10 * GIB}}
INSTALL = Step("engine", "Ensure the engine's locked packages are installed", "started")


class FakeConnection:
    """A host whose disk has one GiB less free each time it is asked."""

    def __init__(self, code=0):
        self.code, self.asked, self.free = code, [], 100

    def run(self, *words, root):
        self.asked.append((words[-1], root))
        self.free -= 1
        return subprocess.CompletedProcess(words, self.code, f"{2**20} {self.free * 1024}\n", "")


@pytest.fixture
def notes(monkeypatch):
    """The notes of a run with these steps, of which the last task is a long one."""
    monkeypatch.setattr(growth, "_BASE_SECONDS", 0.01)
    monkeypatch.setattr(growth, "_LONG_SECONDS", 0.03)

    def followed(connection, *steps, wanted=2):
        seen, enough = [], threading.Event()

        def on_step(step):
            seen.append(step)
            if len(seen) == wanted:
                enough.set()

        watch = growth.Growth(connection, on_step)
        with watch.watched():
            for step in steps:
                watch.step(step)
            enough.wait(20 if wanted else 0.2)
        count = len(seen)
        time.sleep(0.1)
        assert len(seen) == count  # nothing is told any more
        assert {(step.role, step.task, step.outcome) for step in seen} <= {(INSTALL.role, INSTALL.task, "waiting")}
        return [step.note for step in seen]

    return followed


def test_a_long_task_is_told_in_bytes_and_per_cent(notes):
    host = FakeConnection()
    assert notes(host, Step("engine", "Set the space", "ok", facts=SPACE), INSTALL)[:2] == [
        "1.0 of about 10.0 GiB (10%)",
        "2.0 of about 10.0 GiB (20%)",
    ]
    assert set(host.asked) == {("/opt", False)}


@pytest.mark.parametrize(
    "steps",
    [
        [INSTALL],  # nobody said how much
        [Step("engine", "Set the space", "ok", facts={"engine_space": {"path": "/opt", "bytes": 0}}), INSTALL],
        [Step("model", "Set the space", "ok", facts={"model_space": SPACE["engine_space"]}), INSTALL],
    ],
)
def test_a_task_of_unknown_size_is_not_looked_at(notes, steps):
    host = FakeConnection()
    assert notes(host, *steps, wanted=0) == []
    assert host.asked == []


def test_a_host_that_does_not_say_is_no_failure(notes):
    assert notes(FakeConnection(code=255), Step("engine", "Set the space", "ok", facts=SPACE), INSTALL, wanted=0) == []


def test_it_is_never_whole_before_the_task_is_done():
    assert growth._note(99 * GIB, 10 * GIB) == "99.0 of about 10.0 GiB (99%)"
    assert growth._note(-1, 10 * GIB) == "0.0 of about 10.0 GiB (0%)"
