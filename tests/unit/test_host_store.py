"""zorac_host/store.py: a host's files are complete, and unused ones can be removed."""

import errno
import os

import pytest

from tests.unit.generations import UNIT, become, made
from zorac_host import store


@pytest.fixture(autouse=True)
def on(disk):
    return disk


def numbers():
    return [each.number for each in store.generations()]


def test_generations_are_listed_by_number(disk):
    for number in (10, 9, 1):
        made(number)
    (disk / "etc" / "generations" / "11.partial").mkdir()
    (disk / "etc" / "generations" / "12").mkdir()  # one without its description does not count
    assert numbers() == [1, 9, 10]


def test_before_the_first_there_is_no_current_one():
    assert (store.current(), store.generations(), store.last_good(1)) == (None, [], None)


def test_a_flip_is_prepared_first_and_then_atomic(disk):
    flip = store.Flip(made(1))
    assert store.current() is None
    assert not (disk / "units" / UNIT).exists()
    flip.apply()
    assert store.current().number == 1
    assert (disk / "units" / UNIT).read_text().endswith("/generations/1\n")


def test_activation_and_rollback_are_prepared_together(disk):
    there, back = store.Flip(made(2)), store.Flip(made(1))
    for flip, number in ((there, 2), (back, 1)):
        flip.apply()
        assert store.current().number == number
        assert (disk / "units" / UNIT).read_text().endswith(f"/generations/{number}\n")


def test_an_unused_preparation_is_removed(disk):
    store.Flip(made(1)).apply()
    store.Flip(made(2))
    store.tidy()
    assert sorted(path.name for path in (disk / "etc").iterdir()) == ["current", "generations"]
    assert [path.name for path in (disk / "units").iterdir()] == [UNIT]


def test_a_flip_prepared_before_a_kill_is_used_again(disk):
    (disk / "units" / ".generation-1").write_text("torn")
    store.Flip(made(1))
    store.Flip(store.generation(1)).apply()
    assert "torn" not in (disk / "units" / UNIT).read_text()


def test_the_current_one_can_be_forgotten_twice(disk):
    become(made(1))
    store.forget_current(UNIT)
    store.forget_current(UNIT)
    assert store.current() is None
    assert list((disk / "units").iterdir()) == []


def test_the_last_good_generation_is_the_one_verified_last():
    for number in (1, 2, 3, 4):
        made(number)
    for number, state in ((3, "proved"), (2, "proved"), (1, "proved"), (4, "failed"), (2, "proved")):
        store.set_outcome(number, {"state": state})
    assert [store.outcome(number)["order"] for number in (1, 2, 3, 4)] == [3, 5, 1, 4]
    assert store.last_good(0).number == 2
    assert store.last_good(2).number == 1


def test_the_activation_in_progress_is_stored_until_it_ends():
    assert store.pending() == {}
    store.set_pending({"target": 2})
    assert store.pending() == {"target": 2}
    store.end_pending()
    store.end_pending()
    assert store.pending() == {}


@pytest.mark.parametrize("text", ["", '{"target": 2', "[1]", "null", "\x00" * 8])
def test_a_truncated_file_is_ignored(disk, text):
    (disk / "state" / "activation.json").write_text(text)
    assert store.pending() == {}


def test_a_file_is_written_completely_or_not_at_all(disk, monkeypatch):
    file = disk / "state" / "deep" / "file"
    store.write(file, "old", 0o640)

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.write(file, "new", 0o600)
    assert {path.name: path.read_text() for path in file.parent.iterdir()} == {"file": "old"}
    assert file.stat().st_mode & 0o777 == 0o640


@pytest.fixture
def five(disk):
    """Five generations: 1 to 3 were verified, 4 failed, 5 is new; 3 is current. They share the model."""
    for number in (1, 2, 3, 4, 5):
        for name in (f"engine-{number}", "model"):
            (disk / name).mkdir(exist_ok=True)
            (disk / name / "data").write_bytes(b"x" * 8192)
        made(number, disk=[str(disk / f"engine-{number}"), str(disk / "model")], scratch=[str(disk / "scratch")])
    for number in (1, 2, 3):
        become(store.generation(number))
    store.set_outcome(4, {"state": "failed"})
    store.write(store.generation(4).journal, "it failed", 0o640)
    return disk


def test_the_current_one_the_last_good_ones_and_the_newest_are_kept(five):
    removed = store.collect(keep=1)
    assert removed["generations"] == [1, 4]
    assert removed["paths"] == [str(five / "engine-1"), str(five / "engine-4"), str(five / "scratch")]
    assert removed["bytes"] == sum((five / f"engine-{number}" / "data").stat().st_blocks for number in (2, 3)) * 512
    assert numbers() == [2, 3, 5]
    assert (store.outcome(4), store.generation(4)) == ({}, None)
    assert sorted(path.name for path in (five / "state" / "generations").iterdir()) == ["2.json", "3.json"]
    assert sorted(path.name for path in five.glob("engine-*")) == ["engine-2", "engine-3", "engine-5"]
    assert (five / "model").is_dir()


@pytest.mark.usefixtures("five")
def test_with_keep_0_only_the_current_one_and_the_newest_are_kept():
    assert store.collect(keep=0)["generations"] == [1, 2, 4]


def test_a_dry_run_returns_the_same_and_removes_nothing(five):
    before = sorted(five.rglob("*"))
    would = store.collect(keep=1, check=True)
    assert sorted(five.rglob("*")) == before
    assert store.collect(keep=1) == would


def test_nothing_in_use_is_removed(five):
    (five / "scratch").mkdir()
    store.set_outcome(4, {"state": "proved"})
    assert store.collect(keep=9) == {"generations": [], "paths": [], "bytes": 0}
    assert (five / "scratch").is_dir()


def test_a_file_counts_once_and_only_if_all_of_its_links_go(five):
    (five / "scratch").mkdir()
    (five / "scratch" / "data").hardlink_to(five / "engine-1" / "data")
    (five / "elsewhere").hardlink_to(five / "engine-4" / "data")
    (five / "engine-1" / "link").symlink_to(five / "model" / "data")
    assert store.collect(keep=1)["bytes"] == (five / "model" / "data").stat().st_blocks * 512
    assert (five / "elsewhere").is_file()
    assert (five / "model" / "data").is_file()


@pytest.mark.parametrize("held", [b"", b" \n", "schlüssel".encode(), "ü".encode("latin-1"), b"a b", b"a\x00b"])
def test_a_key_that_cannot_be_sent_is_not_shown(disk, held):
    (disk / "etc/api-key").write_bytes(held)
    with pytest.raises(ValueError, match="is empty, or has other characters") as told:
        store.key()
    assert not held.strip() or held.decode("latin-1") not in str(told.value)


def test_a_key_may_end_with_a_newline(disk):
    (disk / "etc/api-key").write_text("sk-1\n")
    assert store.key() == "sk-1"
