import hashlib
import os

import pytest

from zorac_host import kinds, tree


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "engine"
    site = folder / "lib/python3.11/site-packages"
    (site / "vllm").mkdir(parents=True)
    (site / "vllm-0.32.0.dist-info").mkdir()
    (site / "vllm/server.py").write_text("serve()\n")
    (site / "vllm/data.bin").write_bytes(b"\0" * 100)
    (site / "vllm-0.32.0.dist-info/RECORD").write_text("vllm/server.py,,\nvllm/data.bin,,\n../../../bin/vllm,,\n")
    (folder / "bin").mkdir()
    (folder / "bin/vllm").write_text("#!\n")
    (folder / "bin/python").symlink_to("/usr/bin/python3")
    return folder


SERVER = "lib/python3.11/site-packages/vllm/server.py"


@pytest.fixture
def part(folder, tmp_path):
    record = tmp_path / "records/engine.json.gz"
    return {"path": str(folder), "record": str(record), **tree.describe(folder, record, create=True)}


def changed(folder, part, deep=False):
    return [(change.name, change.aspect) for change in tree.changes(folder, part, deep)]


def test_an_unchanged_directory_has_no_differences(folder, part):
    assert changed(folder, part) == changed(folder, part, deep=True) == []
    assert part["files"] == 4
    assert part["bytes"] == len("serve()\n") + 100 + len("vllm/server.py,,\nvllm/data.bin,,\n../../../bin/vllm,,\n#!\n")


def remove(path):
    path.unlink()


def write(path):
    path.write_text("evil(everyone)\n")


def open_to_all(path):
    path.chmod(0o777)


def point_elsewhere(path):
    path.unlink()
    path.symlink_to("/evil")


@pytest.mark.parametrize(
    ("act", "aspects"),
    [
        (remove, {"missing"}),
        (write, {"size"}),
        (open_to_all, {"mode"}),
        (point_elsewhere, {"type", "mode", "size", "target"}),
    ],
)
def test_a_changed_file_is_reported(folder, part, act, aspects):
    act(folder / SERVER)
    found = changed(folder, part)
    assert {name for name, _ in found} == {SERVER}
    assert {aspect for _, aspect in found} == aspects


def test_an_added_file_is_reported(folder, part):
    name = "lib/python3.11/site-packages/evil.pth"
    (folder / name).write_text("import os\n")
    assert changed(folder, part) == [(name, "added")]


def test_a_changed_byte_with_a_restored_time_is_found_by_reading(folder, part):
    path = folder / "lib/python3.11/site-packages/vllm/data.bin"
    before = path.stat()
    path.write_bytes(b"\0" * 99 + b"\1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed(folder, part) == []
    assert changed(folder, part, deep=True) == [("lib/python3.11/site-packages/vllm/data.bin", "content")]


def test_an_existing_record_is_not_changed(folder, part):
    write(folder / SERVER)
    again = tree.describe(folder, tree.Path(part["record"]), create=True)
    assert again["fingerprint"] == part["fingerprint"]


def test_an_unchanged_record_is_described_as_before(folder, part):
    record = tree.Path(part["record"])
    assert tree.describe(folder, record, create=True, before=part | {"files": -1})["files"] == -1
    assert tree.describe(folder, record, create=True, before=part | {"record_sha256": "0" * 64})["files"] > 0


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b garbage"])
def test_a_damaged_record_is_a_difference(folder, part, content):
    write(folder / SERVER)
    tree.Path(part["record"]).write_bytes(content)
    assert changed(folder, part) == [("", "record")]


def test_digests_in_wheels_are_recorded_first_and_compared_later(tmp_path):
    site = tmp_path / "lib/python3.11/site-packages"
    (site / "a-1.dist-info").mkdir(parents=True)
    (site / "a.py").write_text("other than the wheel had\n")
    (site / "a-1.dist-info/RECORD").write_text("a.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n")
    record = tmp_path / "r.gz"
    part = {"record": str(record), **tree.describe(site.parent.parent.parent, record, create=True)}
    record_name = "r.gz"
    found = [each for each in changed(tmp_path, part, deep=True) if each[0] != record_name]
    assert found == [("lib/python3.11/site-packages/a.py", "content")]


def test_the_package_of_a_file(folder):
    assert tree.packages(folder, [SERVER]) == ["vllm"]
    assert tree.packages(folder, ["bin/vllm"]) == ["vllm"]
    assert tree.packages(folder, ["lib/python3.11/site-packages/vllm-0.32.0.dist-info/METADATA"]) == ["vllm"]


def test_a_missing_directory_belongs_to_the_packages_of_its_files(folder):
    assert tree.packages(folder, [SERVER.rpartition("/")[0]]) == ["vllm"]
    assert tree.packages(folder, ["lib/python3.11/site-packages/vllm/__pycache__"]) == ["vllm"]
    byte_code = "lib/python3.11/site-packages/vllm/__pycache__/server.cpython-311.pyc"
    assert tree.packages(folder, [byte_code]) == ["vllm"]


def test_a_file_of_no_package_is_named_and_in_a_library_any_package_may_be_damaged(folder):
    assert tree.packages(folder, ["bin/python", "pyvenv.cfg", SERVER]) == ["./bin/python", "./pyvenv.cfg", "vllm"]
    byte_code = "lib/python3.11/site-packages/vllm/entrypoints/__pycache__/api.cpython-311.pyc"
    assert tree.packages(folder, [byte_code, "bin/vllm"]) == ["*", "vllm"]


def test_recompiled_byte_code_of_a_wheel_is_no_difference(folder, tmp_path):
    site = folder / "lib/python3.11/site-packages"
    (site / "vllm/__pycache__").mkdir()
    (site / "vllm/__pycache__/server.cpython-311.pyc").write_bytes(b"compiled here")
    listed = "vllm/__pycache__/server.cpython-311.pyc,sha256=" + "A" * 43 + ",13\n"
    (site / "vllm-0.32.0.dist-info/RECORD").write_text("vllm/server.py,,\n" + listed)
    record = tmp_path / "records/engine.json.gz"
    part = {"path": str(folder), "record": str(record), **tree.describe(folder, record, create=True)}
    assert changed(folder, part, deep=True) == []


def test_without_its_record_everything_may_be_damaged(folder, part):
    tree.Path(part["record"]).unlink()
    write(folder / SERVER)
    [difference] = kinds.trees([{**part, "owner": "engine", "kind": "tree"}], False)
    assert (difference.aspect, difference.packages) == ("record", [tree.EVERY])


@pytest.mark.parametrize("size", [0, 1, tree._SMALL_BYTES - 1, tree._SMALL_BYTES, tree._SMALL_BYTES + 1])
def test_a_file_of_any_size_has_the_digest_of_its_content(tmp_path, size):
    content = bytes(position % 251 for position in range(size))
    (tmp_path / "file").write_bytes(content)
    assert tree.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_each_of_many_files_gets_its_own_digest(tmp_path):
    names = [str(number) for number in range(2 * tree._BATCH + 1)]
    for name in names:
        (tmp_path / name).write_text(name)
    digests = tree._digests(tmp_path, names)
    assert digests == {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
