"""zorac_host/watchdog.py: a healthy engine is left alone, a hung one is restarted, a limited number of times."""

from itertools import pairwise
from types import SimpleNamespace

import pytest

from tests.unit.generations import become, made
from zorac_host import activation, proof, service, store, watchdog
from zorac_host.service import Failure

IDLE, STALL, ANSWER = 300, 180, 30


class Host:
    """The watchdog's view and its actions: an engine's state, its metrics, its answers; the restarts."""

    now, state, ends, metrics, answers = 10_000.0, "active", 0, (False, 0), True
    start, journal = "a", ""

    def __init__(self):
        self.asked, self.restarted, self.gone_back = [], [], []

    def later(self, seconds, **changes):
        """Check after so many seconds, with the given changes."""
        vars(self).update(changes)
        self.now += seconds
        return watchdog.look(IDLE, STALL, ANSWER)

    def progress(self, *_):
        if self.metrics is None or isinstance(self.metrics, tuple):
            return self.metrics
        raise Failure(self.metrics)

    def one_token(self, *_):
        self.asked.append(self.now)
        if not self.answers:
            raise Failure("no token came")

    def begin(self, number, by, restart=False):
        assert by == activation.WATCHDOG
        self.ends = 0
        (self.restarted if restart else self.gone_back).append((number, self.now))


@pytest.fixture
def host(disk, monkeypatch):  # noqa: ARG001 - the disk is where it keeps what it counts
    host = Host()
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: host.now))
    monkeypatch.setattr(
        service,
        "shown",
        lambda _: {"ActiveState": host.state, "NRestarts": str(host.ends), "InvocationID": host.start},
    )
    monkeypatch.setattr(service, "journal", lambda *_: host.journal)
    monkeypatch.setattr(proof, "progress", host.progress)
    monkeypatch.setattr(proof, "one_token", host.one_token)
    monkeypatch.setattr(activation, "begin", host.begin)
    become(made(1))
    return host


def test_an_engine_that_generates_tokens_gets_no_test_request(host):
    assert {host.later(600, metrics=(True, count)) for count in range(1, 9)} == {"the engine generates tokens"}
    assert (host.asked, host.restarted) == ([], [])


def test_the_log_of_a_restart_by_others_is_stored(host):
    host.later(60, journal="Available KV cache memory: 6.55 GiB")
    assert store.outcome(1)["engine"] == {"kv_gib": 6.55}
    host.later(60, journal="Available KV cache memory: 7.40 GiB")  # not a new start: not parsed again
    assert store.outcome(1)["engine"] == {"kv_gib": 6.55}
    host.later(60, start="b")
    assert store.outcome(1)["engine"] == {"kv_gib": 7.4}
    host.later(60, start="c", journal="")
    assert store.outcome(1)["engine"] == {"kv_gib": 7.4}


def test_an_idle_engine_gets_a_test_request(host):
    found = [host.later(60) for _ in range(12)]
    assert found.count("the engine is idle and answers") == 2
    assert set(found[6:]) == {"the engine is idle", "the engine is idle and answers"}
    assert [after - before for before, after in pairwise(host.asked)] == [IDLE]


def test_an_engine_without_metrics_gets_a_test_request(host):
    assert host.later(60, metrics=None) == "the engine is idle"
    assert host.later(IDLE) == "the engine is idle and answers"


def test_a_second_check_without_tokens_restarts(host):
    host.later(0, metrics=(True, 7))
    assert host.later(STALL) == "the engine has requests"
    assert host.later(60) == f"check failed: the engine has requests, but generated no token for {STALL + 60} s"
    assert host.restarted == []
    assert host.later(60).startswith("restarts the engine: ")
    assert host.restarted == [(1, host.now)]


def test_new_tokens_clear_a_failed_check(host):
    host.later(0, metrics=(True, 7))
    assert host.later(STALL + 1).startswith("check failed")
    assert host.later(1, metrics=(True, 8)) == "the engine generates tokens"
    assert host.later(STALL + 1).startswith("check failed")
    assert host.restarted == []


def test_an_idle_engine_after_a_failed_check_is_tested_at_once(host):
    host.later(0)
    assert host.later(60, metrics="/metrics did not answer") == "check failed: /metrics did not answer"
    assert host.later(1, metrics=(False, 0)) == "the engine is idle and answers"
    assert host.later(IDLE, answers=False) == "check failed: no token came"
    assert host.later(1) == "restarts the engine: no token came"


def test_an_engine_that_refuses_the_key_is_not_restarted(host, monkeypatch):
    def refused(*_):
        raise proof.KeyRefused("/v1/chat/completions")

    host.later(0)
    monkeypatch.setattr(proof, "one_token", refused)
    told = {host.later(IDLE) for _ in range(20)}
    assert told == {f"check failed: {proof.KeyRefused('/v1/chat/completions')}. Restart it with: zorac-deploy up"}
    assert (host.restarted, host.gone_back) == ([], [])
    assert store.watch()["doubt"].startswith("/v1/chat/completions answered 401")


def test_an_engine_that_systemd_gave_up_is_restarted_at_once(host):
    assert host.later(0, state="failed").startswith("restarts the engine: the engine failed repeatedly")


def test_an_engine_that_ends_occasionally_is_left_to_systemd(host):
    host.later(0)
    for ends in range(1, 9):
        assert host.later(1801, ends=ends, metrics=(True, ends)) == "the engine generates tokens"


@pytest.mark.parametrize("state", ["active", "activating"])
def test_an_engine_that_ends_often_is_restarted(host, state):
    host.later(0)
    host.later(60, ends=2)
    assert host.later(60, ends=3, state=state) == "restarts the engine: the engine ended 3 times within an hour"
    assert host.later(60, state="active", metrics=(True, 9)) == "the engine generates tokens"


@pytest.mark.parametrize("state", ["inactive", "deactivating"])
def test_an_engine_stopped_by_a_user_is_not_restarted_after_many_ends(host, state):
    host.later(0)
    assert host.later(60, ends=9, state=state) == f"vllm.service is {state}"
    assert host.restarted == []


def test_two_unsuccessful_restarts_are_rolled_back(host):
    become(made(2))
    host.state = "failed"
    while not host.gone_back:
        host.later(10)
    assert [number for number, _ in host.restarted] == [2, 2]
    assert [number for number, _ in host.gone_back] == [1]


@pytest.mark.parametrize("state", ["inactive", "activating", "deactivating"])
def test_an_engine_stopped_or_started_by_a_user_is_not_restarted(host, state):
    assert host.later(9999, state=state, metrics="no answer") == f"vllm.service is {state}"
    assert host.restarted == []


def test_the_pause_between_restarts_doubles_up_to_a_limit(host):
    host.state = "failed"
    while not (found := host.later(10)).startswith("gave up"):
        assert found.startswith(("restarts the engine", "waits"))
    times = [when for _, when in host.restarted]
    assert [after - before for before, after in pairwise(times)] == [120, 240, 480, 960]
    assert found == "gave up after 5 restarts: the engine failed repeatedly, and systemd gave up"
    assert store.watch()["gave_up"] == "the engine failed repeatedly, and systemd gave up"
    host.later(9999)
    assert len(host.restarted) == 5


def test_a_recovered_engine_is_no_longer_given_up(host):
    for _ in range(200):
        host.later(10, state="failed")
    host.later(10, state="active", metrics=(True, 9))
    assert store.watch()["gave_up"] == ""


def test_six_healthy_hours_reset_the_restarts(host):
    host.later(0, state="failed")
    host.later(6 * 3600, state="active", metrics=(True, 1))
    assert len(store.watch()["helped"]) == 1
    host.later(1, metrics=(True, 2))
    assert store.watch()["helped"] == []


def test_a_boot_resets_the_counts(host):
    host.later(0, state="failed")
    store.set_watch({**store.watch(), "boot": "another"})
    assert host.later(1, now=5.0).startswith("restarts the engine")  # not "waits": the boot reset the kernel's clock
    assert len(store.watch()["helped"]) == 1


def test_an_activation_in_progress_is_left_alone(host):
    store.set_pending({"target": 2})
    assert host.later(9999, state="failed") == "nothing to check"


def test_without_a_generation_nothing_is_checked(host):
    store.forget_current("vllm.service")
    assert host.later(9999, state="failed") == "nothing to check"
    assert host.restarted == []


def test_what_the_journal_shows_stands_in_the_reason(host):
    host.journal = "ERROR torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB"
    said = [host.later(60, ends=ends) for ends in range(5)]
    assert any("Its journal shows: ERROR torch.OutOfMemoryError" in each for each in said)
    assert host.restarted
