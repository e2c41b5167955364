"""A bundle is complete, unpacks unchanged, and every change of it is detected."""

import json
import os
import shutil
import string
import subprocess
import tarfile
import tempfile
from pathlib import Path

import platformdirs
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.bundles import FILES, bundle
from zorac_deploy import bundle as bundles
from zorac_deploy.bundle import about
from zorac_deploy.cli import cli
from zorac_deploy.errors import Refused

pytestmark = pytest.mark.usefixtures("cache")


def unpacked(cache):
    """The unpacked cache, with archives opened."""
    found = {}
    for path in (path for path in cache.rglob("*") if path.is_file()):
        if path.suffix == ".tar":
            with tarfile.open(path) as archive:
                found |= {f"{path.stem}/{each.name}": archive.extractfile(each).read() for each in archive}
        else:
            found[str(path.relative_to(cache / "bundles" / path.relative_to(cache / "bundles").parts[0]))] = (
                path.read_bytes()
            )
    return found


_NAMES = st.text(string.ascii_letters + string.digits + "-_.+é ", min_size=1, max_size=120).filter(
    lambda name: name not in (".", "..")
)
_PATHS = st.builds("{}/{}".format, st.sampled_from(["wheels", "sources", "packages", "model/M"]), _NAMES)


@settings(max_examples=100)
@given(files=st.dictionaries(_PATHS, st.binary(max_size=5000), max_size=8), part_size=st.integers(1000, 30000))
def test_files_in_parts_of_any_size_unpack_unchanged(files, part_size):
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(platformdirs, "user_cache_path", lambda _: Path(scratch) / "cache")
        made = bundle(Path(scratch) / "b", files, part_size)
        assert all(path.stat().st_size <= part_size for path in made.glob("part-*"))
        bundles.unpack(made)
        assert unpacked(Path(scratch) / "cache") == files


@settings(max_examples=200)
@given(data=st.data())
def test_any_flipped_bit_is_detected(data):
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        patch.setattr(platformdirs, "user_cache_path", lambda _: Path(scratch) / "cache")
        made = bundle(Path(scratch) / "b", part_size=1000)
        path = data.draw(st.sampled_from([*sorted(made.glob("part-*")), made / "bundle.json"]))
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        with pytest.raises(Refused, match=f"{path.name}.* altered.*Copy the bundle again") as refusal:
            bundles.unpack(made)
        assert refusal.value.refusal == "bundle-damaged"
        assert not list((Path(scratch) / "cache").rglob("*.*"))


def test_the_parts_joined_are_a_tar_file(tmp_path):
    made = bundle(tmp_path / "b")
    joined = b"".join(path.read_bytes() for path in sorted(made.glob("part-*")))
    names = subprocess.run(["tar", "--list"], input=joined, capture_output=True, check=True).stdout.decode().split()
    assert names == list(FILES)


def _remove(made):
    (made / "part-0002").unlink()
    (made / "part-0003").unlink()


def _cut(made):
    os.truncate(made / "part-0002", 7)


def _alter(made):
    (made / "part-0002").write_bytes(b"x" * 1000)


def _forget(made):
    (made / "bundle.json").unlink()


def _unsum(made):
    (made / "bundle.json.sha256").unlink()


def _unjson(made):
    (made / "bundle.json").write_text("{")
    (made / "bundle.json.sha256").write_text(about.digest(made))


def _newer(made):
    text = (made / "bundle.json").read_text().replace('"format": 1', '"format": 2')
    (made / "bundle.json").write_text(text)
    (made / "bundle.json.sha256").write_text(about.digest(made))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_remove, "lacks part-0002, part-0003 of"),
        (_cut, "part-0002 has 7 bytes, bundle.json lists 1000"),
        (_alter, "part-0002 was altered"),
        (_forget, "has no bundle: .*bundle.json"),
        (_unsum, "has no bundle: .*bundle.json.sha256"),
        (_unjson, "cannot read"),
        (_newer, r"cannot read .*\(format: .*another version"),
        (shutil.rmtree, "has no bundle"),
    ],
)
def test_an_incomplete_bundle_is_refused_with_the_part(tmp_path, cache, harm, says):
    made = bundle(tmp_path / "b", part_size=1000)
    harm(made)
    for command in (["bundle", "inspect", str(made), "--verify"], ["up", "--bundle", str(made)]):
        outcome = CliRunner().invoke(cli, command)
        assert outcome.exit_code == 83, outcome.output
        with pytest.raises(Refused, match=says):
            bundles.verify(made, bundles.read(made).parts)
    assert not cache.exists() or not list((cache / "bundles").iterdir())


@pytest.mark.parametrize("path", ["model/../../etc/passwd", "/etc/passwd", "model//x", "other/x", "model"])
def test_a_path_outside_the_bundle_is_refused(tmp_path, path):
    made = bundle(tmp_path / "b")
    text = (made / "bundle.json").read_text().replace("model/M/config.json", path)
    (made / "bundle.json").write_text(text)
    (made / "bundle.json.sha256").write_text(about.digest(made))
    with pytest.raises(Refused, match="leads out of the bundle"):
        bundles.unpack(made)


def test_an_unlisted_file_is_refused(tmp_path, cache):
    listed = bundles.read(bundle(tmp_path / "b")).files
    with pytest.raises(Refused, match=r"model/M/config.json is not in bundle.json"):
        bundles.unpack(bundle(tmp_path / "more", listed=listed[:2]))
    with pytest.raises(Refused, match="do not contain the files"):
        bundles.unpack(
            bundle(tmp_path / "less", listed=[*listed, listed[0].model_copy(update={"path": "wheels/more"})])
        )
    assert not list((cache / "bundles").iterdir())


def test_an_unpacked_bundle_is_reused_without_its_parts(tmp_path):
    made = bundle(tmp_path / "b")
    first = bundles.unpack(made)
    for part in made.glob("part-*"):
        part.unlink()
    assert bundles.unpack(made) == first
    assert Path(first["model_weights_source"], "config.json").read_bytes() == b"{}"
    assert first["engine_wheels_for"]["python"] == "3.11"
    assert first["offline_packages_names"] == ["libnuma1"]
    assert first["offline_packages_bytes"] > 0


def test_an_interrupted_unpacking_leaves_nothing(tmp_path, cache):
    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bundles.unpack(bundle(tmp_path / "b"), stop)
    assert not list((cache / "bundles").iterdir())


@pytest.mark.usefixtures("full_disk")
def test_no_space_to_unpack(tmp_path, cache):
    with pytest.raises(Refused, match=r"unpacking the bundle needs 0.0 GiB under .*, but 0.0 GiB are free"):
        bundles.unpack(bundle(tmp_path / "b"))
    assert not list((cache / "bundles").iterdir())


def test_inspect_lists_the_content(tmp_path):
    made = bundle(tmp_path / "b", absent=["a driver: the host must have one."])
    outcome = CliRunner().invoke(cli, ["bundle", "inspect", str(made), "--verify"])
    assert outcome.exit_code == 0, outcome.output
    for words in (bundles.digest(made), "debian12 with Python 3.11", "cpu-0.32.0, 1 wheels", "a driver", "intact"):
        assert words in outcome.output
    told = json.loads(CliRunner().invoke(cli, ["bundle", "inspect", str(made), "--json"]).output)
    assert told["sha256"] == bundles.digest(made)
    assert [file["path"] for file in told["files"]] == list(FILES)


@pytest.mark.parametrize(("size", "given"), [("60M", 60 * 2**20), ("3.9G", int(3.9 * 2**30)), ("2048k", 2**21)])
def test_a_part_size(tmp_path, monkeypatch, size, given):
    sizes = []
    monkeypatch.setattr(bundles, "create", lambda _, folder, size, __: sizes.append(size) or bundles.read(folder))
    made = bundle(tmp_path / "b")
    words = ["--engine", "cpu-0.32.0", "--system", "debian12", "--model", "m", "--output", str(made)]
    assert CliRunner().invoke(cli, ["bundle", "create", *words, "--part-size", size]).exit_code == 0
    assert sizes == [given]


@pytest.mark.parametrize("size", ["0M", "1023K", "-1G", "60", "1e3M", "x"])
def test_an_invalid_part_size(size):
    words = ["--engine", "e", "--system", "debian12", "--model", "m", "--output", "o", "--part-size", size]
    outcome = CliRunner().invoke(cli, ["bundle", "create", *words])
    assert outcome.exit_code == 2
    assert "is not a size. Give at least 1M" in outcome.output


def test_a_bundle_has_its_model():
    outcome = CliRunner().invoke(cli, ["up", "--bundle", "b", "--model", "m"])
    assert outcome.exit_code == 2
    assert "Remove --model" in outcome.output
