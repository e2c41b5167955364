"""zorac_host/activation.py: an activation ends with the new engine verified, or with the old one verified again."""

import json
import os
import shutil
import sys
from types import SimpleNamespace

import pytest

from tests.unit import engine_logs
from tests.unit.generations import OTHER, UNIT, become, made
from tests.unit.refusals import refuses
from tests.unit.systemd import activate, enabled, serves
from zorac_host import activation, proof, service, store
from zorac_host.refusal import Refusal


def test_the_first_generation_is_verified_and_enabled(host):
    assert activate(1)
    assert serves(host, 1)
    assert set(store.outcome(1)["seconds"]) == {"stop", "memory", "start", "proof", "silent"}


@pytest.mark.parametrize("fault", ["broken", "mute"])
def test_if_the_first_fails_nothing_is_enabled(host, fault):
    getattr(host, fault).add(1)
    assert not activate(1)
    assert (store.current(), host.runs, enabled(UNIT), store.pending()) == (None, None, False, {})
    told = store.outcome(1)
    assert (told["state"], told["previous"], told["lines"]) == ("failed", None, ["ERROR out of memory"])
    assert store.generation(1).journal.read_text() == host.lines


def test_the_only_generation_does_not_stay_if_it_answers_without_the_key(host):
    activate(1)
    host.open.add(1)
    assert not activate(1)
    assert (store.current(), host.runs, enabled(UNIT), store.pending()) == (None, None, False, {})


@pytest.mark.parametrize("fault", ["broken", "mute"])
def test_the_only_generation_stays_enabled_if_it_does_not_start_again(host, fault):
    activate(1)
    getattr(host, fault).add(1)
    for _ in range(2):
        assert not activate(1, restart=True)
        told = store.outcome(1)
        assert (told["state"], told["previous"], told["served"]) == ("failed", None, True)
        assert (store.current().number, host.runs, enabled(UNIT), store.pending()) == (1, 1, True, {})
    getattr(host, fault).clear()
    assert activate(1)
    assert serves(host, 1)


def test_an_engine_of_another_kind_replaces_the_unit_and_back(host):
    made(4, unit=OTHER)
    for number in (1, 4, 1, 4):
        assert activate(number)
        assert serves(host, number)


@pytest.mark.parametrize("fault", ["broken", "mute"])
def test_if_an_engine_of_another_kind_fails_the_first_serves_again(host, fault):
    activate(1)
    made(4, unit=OTHER)
    getattr(host, fault).add(4)
    assert activate(4)
    assert serves(host, 1)


def test_an_engine_that_systemd_restarts_is_waited_for(host):
    activate(1)
    host.state, host.restarted, stopped = "activating", True, host.stopped
    assert activate(1)
    assert serves(host, 1)
    assert host.stopped == stopped


@pytest.mark.parametrize("fault", ["broken", "mute"])
def test_if_the_second_fails_the_first_serves_again(host, fault):
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


def test_an_engine_that_answers_without_the_key_is_rolled_back(host):
    activate(1)
    host.open.add(2)
    assert activate(2)
    assert serves(host, 1)
    assert store.outcome(2)["reason"].startswith("POST /invocations answered 200 without the key")


def test_a_rollback_accepts_a_generation_with_open_routes(host):
    activate(1)
    host.open.add(1)  # an earlier zorac-deploy did not check
    host.broken.add(2)
    assert activate(2)
    assert serves(host, 1)
    assert activate(1, restart=True)
    assert serves(host, 1)


def test_the_rollback_is_prepared_before_the_engine_is_stopped(host, monkeypatch):
    activate(1)
    prepared = []
    monkeypatch.setattr(service, "stop", lambda *how: (prepared.extend(store.ETC.glob(".*")), host.stop(*how)))
    activate(2)
    assert {path.name for path in prepared} == {".generation-1", ".generation-2"}


def test_a_failed_generation_is_not_retried_after_a_kill_in_the_rollback(host, monkeypatch):
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


@pytest.mark.parametrize("error", [UnicodeEncodeError("latin-1", "the-key-€", 8, 9, "no"), ValueError("the-key")])
@pytest.mark.parametrize("back", [False, True])
@pytest.mark.parametrize("known", [1, None])
def test_an_unexpected_error_is_rolled_back(host, monkeypatch, error, back, known):
    if known:
        activate(known)
    proved = host.prove

    def prove(about, limit, closed):
        if about["number"] == 2 or back:
            raise error
        proved(about, limit, closed)

    monkeypatch.setattr(proof, "prove", prove)
    assert activate(2) == (bool(known) and not back)
    assert (store.pending(), enabled(activation.UNIT)) == ({}, False)
    told = store.outcome(2)
    assert told["reason"].startswith(f"the host program failed with {type(error).__name__}. ")
    assert told["back_failure"].startswith("the host program failed with " if back and known else "")
    assert "the-key" not in json.dumps(told)
    if known and not back:
        assert serves(host, known)


@pytest.mark.parametrize("what", ["unit", "engine_path", "start_timeout_seconds"])
def test_an_incomplete_description_is_rolled_back(host, what):
    activate(1)
    description = made(4).folder / "generation.json"
    about = json.loads(description.read_text())
    del about[what]
    description.write_text(json.dumps(about))
    activate(4)
    assert store.pending() == {}
    assert (store.outcome(4)["state"], host.runs) == ("failed", 1)


def test_an_activation_that_systemd_gave_up_is_restarted(host, monkeypatch):
    activation.begin(1, "me")
    words = []
    ticks = iter(range(100))

    def systemctl(*command):
        words.append(command)
        if command[0] == "start":
            store.end_pending()

    monkeypatch.setattr(service, "systemctl", systemctl)
    monkeypatch.setattr(activation, "time", SimpleNamespace(sleep=lambda _: None, monotonic=lambda: next(ticks)))
    host.state = "failed"
    activation.wait()
    assert words == [("reset-failed", activation.UNIT), ("start", "--no-block", activation.UNIT)]


def test_if_both_fail_it_is_reported_and_the_first_starts_at_boot(host):
    activate(1)
    host.broken |= {1, 2}
    assert not activate(2)
    assert (host.runs, store.current().number, enabled(UNIT), store.pending()) == (None, 1, True, {})
    assert store.outcome(2)["back_failure"] == "the engine ended before it answered (exit-code)"


def test_a_rollback_is_to_the_last_good_one_if_the_current_one_is_not_verified(host):
    activate(2)
    activate(1)
    become(store.generation(3), "failed")
    host.broken.add(3)
    assert activate(3)
    assert serves(host, 1)
    assert store.outcome(3)["previous"] == 1


def test_a_verified_engine_is_not_stopped_without_restart(host):
    activate(1)
    assert activate(1)
    assert host.stopped == 0
    assert activate(1, restart=True)
    assert host.stopped == 1
    assert serves(host, 1)


def test_a_start_that_crashes_the_host_is_given_up(host, monkeypatch):
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
    assert store.outcome(2)["reason"] == "the host or the activation was killed 3 times during the start"


def test_on_a_full_disk_the_running_engine_is_not_stopped(host, monkeypatch):
    activate(1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    assert activate(2)
    assert (host.stopped, serves(host, 1)) == (0, True)
    assert store.outcome(2)["reason"].startswith("1 MiB are free under ")


def test_if_the_next_engine_cannot_listen_the_running_one_is_not_stopped(host, monkeypatch):
    activate(1)
    made(4, port=8001)

    def taken(about, units=()):
        assert units == {UNIT}  # their memory will be free
        if about["port"] == 8001:
            raise service.Failure("port 8001 of 127.0.0.1 is in use by nginx (process 7 of nginx.service). ")

    monkeypatch.setattr(service, "require_free_port", taken)
    assert activate(4)
    assert (host.stopped, serves(host, 1)) == (0, True)
    assert store.outcome(4)["reason"].startswith("port 8001 of 127.0.0.1 is in use by nginx")


def test_on_a_full_disk_the_running_engine_can_be_restarted(host, monkeypatch):
    activate(1)
    activate(2)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    assert activate(2, restart=True)
    assert serves(host, 2)


def test_a_disk_that_fills_up_during_the_start_is_a_failure(host, monkeypatch):
    activate(1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "set_outcome", full)
    host.broken.add(2)
    assert activate(2)
    assert serves(host, 1)


def test_a_second_activation_is_refused(host):
    activation.begin(1, "me@desk, zorac-deploy up")
    with pytest.raises(activation.Busy, match="generation 1 is being activated, for me@desk, zorac-deploy up"):
        activation.begin(2, "you")
    activation.run()
    assert serves(host, 1)


@pytest.mark.usefixtures("host")
def test_an_unknown_generation_is_refused_with_the_known_ones():
    with refuses("generation-unknown", r"generation 4 does not exist. Choose one of: 1, 2, 3."):
        activation.begin(4, "me")
    assert store.pending() == {}


@pytest.mark.usefixtures("host")
def test_without_a_record_nothing_is_done():
    assert activation.run()
    assert store.current() is None


def test_only_a_users_activation_resets_the_watchdogs_counts(host):
    for by, left in ((activation.WATCHDOG, {"helped": [1.0]}), ("me", {})):
        store.set_watch({"helped": [1.0]})
        activation.begin(1, by, restart=True)
        activation.run()
        assert store.watch() == left
    assert serves(host, 1)


def test_a_clock_that_jumps_back_does_not_change_the_last_good_one(host, monkeypatch):
    clock = iter([2_000_000_000, 2_000_000_000, 1_000_000_000, 1_000_000_000, 0, 0])
    monkeypatch.setattr(activation.time, "time", lambda: next(clock))
    assert all(activate(number) for number in (1, 2, 1))
    assert serves(host, 1)
    assert store.outcome(1)["at"] < store.outcome(2)["at"]
    assert store.last_good(besides=3).number == 1
    assert store.last_good(besides=1).number == 2


def test_the_engines_log_is_stored_with_its_generation(host):
    host.lines = engine_logs.H100
    assert activate(1)
    assert (store.outcome(1)["engine"], store.outcome(1)["cause"]) == (engine_logs.READ["0.26.0-h100"], "")


@pytest.mark.parametrize(
    ("logged", "plan", "cause", "says"),
    [
        (
            engine_logs.H100.replace("13.58", "43.9"),
            {"predicted": {"weights_gib": 13.31}},
            "engine-loaded-more",
            "the engine loaded 43.90 GiB of weights, but 13.31 GiB were planned",
        ),
        (
            engine_logs.FORCED,
            {"card": {"name": "RTX 4090", "compute": "8.9"}},
            "engine-slow-kernel",
            "the engine uses the kernel awq, but the much faster awq_marlin",
        ),
    ],
)
@pytest.mark.parametrize("known", [1, None])
def test_an_engine_that_differs_from_its_plan_is_rolled_back(host, logged, plan, cause, says, known):
    made(4, plan=plan)
    host.lines = engine_logs.H100
    if known:
        activate(known)
    host.lines = logged
    assert activate(4) == bool(known)
    assert serves(host, 1) if known else (store.current(), host.runs, enabled(UNIT)) == (None, None, False)
    told = store.outcome(4)
    assert (told["state"], told["previous"], told["cause"]) == ("failed", known, cause)
    assert says in told["reason"]
    assert told["engine"]["kernels"] == (["awq"] if cause == "engine-slow-kernel" else ["MacheteLinearKernel"])
    assert store.generation(4).journal.read_text() == logged


def test_an_engine_without_an_answer_is_reported_with_its_log(host):
    host.lines = "Model loading took 13.58 GiB and 2.7 seconds\ntorch.OutOfMemoryError: CUDA out of memory\n"
    host.broken.add(1)
    activate(1)
    assert store.outcome(1)["engine"] == {"weights_gib": 13.58}


def test_a_rollback_is_not_compared_with_its_plan_and_its_log_is_stored(host):
    made(4, plan={"predicted": {"weights_gib": 13.58}})
    host.lines = engine_logs.H100
    activate(4)
    order = store.outcome(4)["order"]
    host.broken.add(2)
    host.lines = engine_logs.H100.replace("13.58", "43.9")
    assert activate(2)
    assert serves(host, 4)
    assert (store.outcome(4)["engine"]["weights_gib"], store.outcome(4)["order"]) == (43.9, order)


@pytest.mark.usefixtures("host")
def test_the_journal_is_read_once_and_an_unreadable_one_is_no_failure(monkeypatch):
    read = []
    monkeypatch.setattr(service, "journal", lambda *what: read.append(what) or "")
    assert activate(1)
    assert read == [(UNIT, "here")]
    assert store.outcome(1)["engine"] == {}


def test_a_new_key_is_valid_with_its_activation_and_after_a_rollback(host):
    activate(1)
    assert activate(2, key="new")
    assert serves(host, 2)
    assert (store.key(), store.KEY_FILE.stat().st_mode & 0o777) == ("new", 0o600)
    assert activate(1)
    assert serves(host, 1)
    assert (store.key(), host.stopped) == ("new", 2)


def test_a_new_key_alone_is_one_restart_and_so_is_its_rollback(host):
    activate(1)
    assert activate(1, key="new")
    assert (store.key(), host.stopped, serves(host, 1)) == ("new", 1, True)
    host.mute = {"newer"}
    assert activate(1, key="newer")
    assert (store.key(), host.stopped, serves(host, 1)) == ("new", 3, True)
    told = store.outcome(1)
    assert (told["state"], told["previous"], told["key"]) == ("proved", 1, True)
    assert told["reason"] == "the reply is '!!!!', which is no text"


def test_if_nothing_is_stopped_the_key_and_the_engine_are_unchanged(host, monkeypatch):
    activate(1)

    def taken(*_):
        raise service.Failure("port 8000 of 127.0.0.1 is in use by nginx")

    monkeypatch.setattr(service, "require_free_port", taken)
    assert activate(2, key="new")
    assert (store.key(), host.stopped, serves(host, 1)) == ("old", 0, True)


def test_if_the_first_fails_with_a_new_key_the_old_key_is_restored(host):
    host.broken = {"new"}
    assert not activate(1, key="new")
    assert (store.key(), list(store.ETC.glob(".*"))) == ("old", [])


def test_if_both_fail_the_old_key_is_restored(host):
    activate(1)
    host.broken = {"new", 1}
    assert not activate(2, key="new")
    assert (store.key(), list(store.ETC.glob(".*"))) == ("old", [])


@pytest.mark.usefixtures("host")
def test_keys_are_created_readable_only_by_root(monkeypatch):
    activate(1)
    before, modes = os.umask(0), set()
    stop = service.stop

    def look(*how):
        modes.update(path.stat().st_mode & 0o777 for path in store.ETC.glob(".api-key*"))
        stop(*how)

    monkeypatch.setattr(service, "stop", look)
    activate(2, key="new")
    os.umask(before)
    assert modes == {0o600}


@pytest.mark.usefixtures("host")
def test_only_its_user_can_open_the_lock(disk):
    (disk / "run").mkdir()
    (disk / "run").chmod(0o777)
    activate(1)
    assert [(disk / name).stat().st_mode & 0o777 for name in ("run", "run/activation.lock")] == [0o700, 0o600]


@pytest.mark.usefixtures("host")
@pytest.mark.parametrize("name", ["run", "run/activation.lock"])
def test_a_lock_that_is_a_link_is_refused_and_not_followed(disk, name):
    victim = disk / "victim"
    (disk / name).parent.mkdir(mode=0o700, exist_ok=True)
    (disk / name).symlink_to(victim)
    with pytest.raises((Refusal, OSError)):
        activate(1)
    assert (victim.exists(), store.pending()) == (False, {})


@pytest.mark.usefixtures("host")
def test_a_lock_that_is_a_fifo_is_refused_at_once(disk):
    (disk / "run").mkdir(mode=0o700)
    os.mkfifo(disk / "run/activation.lock")
    with refuses("lock-unsafe", "activation.lock is p"):
        activate(1)


def test_the_cause_of_a_failed_start_is_told_with_its_cure_and_recorded(host):
    assert activate(1)
    host.broken.add(2)
    host.lines = "INFO loading\nERROR [core.py:7] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n"
    activate(2)
    told = store.outcome(2)
    assert [each["id"] for each in told["diagnosis"]] == ["cuda_oom"]
    evidence, cause, *steps = told["lines"]
    assert "CUDA out of memory" in evidence
    assert cause.startswith("cause: ")
    assert all(step.startswith("type: ") for step in steps)


def test_what_fits_no_rule_is_told_by_its_own_lines(host):
    host.broken.add(1)
    host.lines = "ERROR something that nobody has seen before\n"
    assert not activate(1)
    assert store.outcome(1)["diagnosis"] == []
    assert store.outcome(1)["lines"] == ["ERROR something that nobody has seen before"]
