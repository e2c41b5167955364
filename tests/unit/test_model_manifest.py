"""zorac_host/model_manifest.py: complete directories have a manifest, others a refusal with a cure."""

import json
import os
import stat

import pytest

from tests.conftest import safetensors
from tests.unit.refusals import refuses
from zorac_host import model_manifest
from zorac_host.refusal import Refusal


def test_a_complete_directory_has_a_manifest(model_folder):
    manifest = model_manifest.manifest(model_folder)
    assert set(manifest["files"]) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert manifest["bytes"] == sum(file.stat().st_size for file in model_folder.iterdir())


def test_the_digest_depends_only_on_content_and_names(model_folder, tmp_path):
    before = model_manifest.manifest(model_folder)["digest"]
    moved = model_folder.rename(tmp_path / "elsewhere")
    assert model_manifest.manifest(moved)["digest"] == before
    data = bytearray((moved / "model.safetensors").read_bytes())
    data[-1] = 1
    (moved / "model.safetensors").write_bytes(data)
    assert model_manifest.manifest(moved)["digest"] != before


@pytest.mark.parametrize("text", ["[1]", "7", "[" * 100_000, "null"])
def test_a_damaged_cache_of_digests_is_ignored(model_folder, tmp_path, monkeypatch, text):
    monkeypatch.setattr(model_manifest, "_CACHE", tmp_path / "cache.json")
    (tmp_path / "cache.json").write_text(text)
    assert model_manifest.manifest(model_folder, remember=True) == model_manifest.manifest(model_folder)


def test_cached_digests_detect_a_change(model_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(model_manifest, "_CACHE", tmp_path / "cache.json")
    first = model_manifest.manifest(model_folder, remember=True)
    assert model_manifest.manifest(model_folder, remember=True) == first
    (model_folder / "tokenizer.json").write_text('{"changed": true}')
    assert model_manifest.manifest(model_folder, remember=True)["digest"] != first["digest"]


@pytest.mark.parametrize(
    ("breakage", "refusal"),
    [
        (lambda f: (f / "config.json").unlink(), "model-incomplete"),
        (lambda f: (f / "config.json").write_text("{"), "model-damaged"),
        (lambda f: (f / "config.json").write_text("[]"), "model-damaged"),
        (lambda f: (f / "tokenizer.json").unlink(), "model-incomplete"),
        (lambda f: (f / "model.safetensors").unlink(), "model-incomplete"),
        (lambda f: (f / "model.safetensors").write_bytes(b""), "model-damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(safetensors()[:-1]), "model-damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(safetensors() + b"x"), "model-damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(safetensors()[:9]), "model-damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64), "model-damaged"),
        (lambda f: (f / "model.safetensors").write_bytes(safetensors(header={"w": 3})), "model-damaged"),
        (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "model-incomplete"),
        (
            lambda f: (f / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "gone"}})),
            "model-incomplete",
        ),
    ],
)
def test_a_damaged_directory_is_refused(model_folder, breakage, refusal):
    breakage(model_folder)
    with refuses(refusal):
        model_manifest.manifest(model_folder)


ENTRY = {"dtype": "BF16", "shape": [32], "data_offsets": [0, 64]}


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        {"shape": [32], "data_offsets": [0, 64]},
        {"dtype": "BF16", "data_offsets": [0, 64]},
        *({**ENTRY, "dtype": value} for value in (None, ["BF16"], 7)),
        *({**ENTRY, "shape": value} for value in (None, "ab", ["x"], [-2], [1.0], [True], [10**400], [2**62, 4])),
        *(
            {**ENTRY, "data_offsets": value}
            for value in (None, "04", [0, 64, 64], [0, "64"], [80, 64], [-(10**400), 64])
        ),
    ],
)
def test_a_header_that_describes_no_tensor_is_refused(model_folder, entry):
    (model_folder / "model.safetensors").write_bytes(safetensors(header={"weight": entry}))
    with refuses("model-damaged", "its header is not readable"):
        model_manifest.manifest(model_folder)


@pytest.mark.parametrize("header", [b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe", b"null", b"9" * 5000])
def test_a_header_that_is_no_json_object_is_refused(model_folder, header):
    (model_folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    with refuses("model-damaged", "its header is not readable"):
        model_manifest.manifest(model_folder)


def test_a_header_longer_than_the_format_allows_is_not_read(model_folder, monkeypatch):
    with (model_folder / "model.safetensors").open("wb") as file:
        file.write((6 * 2**30).to_bytes(8, "little"))
        file.truncate(7 * 2**30)
    monkeypatch.setattr(model_manifest.json, "loads", lambda text: {"a": 1} if len(text) < 100 else pytest.fail("read"))
    with refuses("model-damaged", "its header is not readable"):
        model_manifest.read_header(model_folder / "model.safetensors")


@pytest.mark.parametrize(
    ("weight_map", "refusal"),
    [
        *((value, "model-damaged") for value in ("../other.safetensors", "/etc/passwd", ".hidden/x", "", "x" * 300)),
        *((value, "model-incomplete") for value in (None, 7, [], ["x"])),
    ],
)
def test_an_index_that_names_no_file_of_the_model_is_refused(model_folder, weight_map, refusal):
    (model_folder.parent / "other.safetensors").write_bytes(safetensors())
    index = json.dumps({"weight_map": {"weight": weight_map, "more": "model.safetensors"}})
    (model_folder / "model.safetensors.index.json").write_text(index)
    with refuses(refusal):
        model_manifest.manifest(model_folder)


@pytest.mark.parametrize("index", ["null", "[]", '{"weight_map": null}', '{"weight_map": []}', "[" * 100_000])
def test_an_invalid_index_is_refused(model_folder, index):
    (model_folder / "model.safetensors.index.json").write_text(index)
    with refuses("model-damaged" if index.startswith("[[") else "model-incomplete"):
        model_manifest.manifest(model_folder)


@pytest.mark.parametrize("name", ["$HOME.json", "a\nb.json", "\x1b[2J.json"])
def test_a_file_name_that_another_program_would_change_is_refused(model_folder, name):
    (model_folder / name).write_text("{}")
    with refuses("model-unsafe", "Rename it"):
        model_manifest.manifest(model_folder)


@pytest.mark.parametrize("folder", ["", "/no/such/folder"])
def test_a_missing_directory_is_refused(folder):
    with refuses("model-missing", r"--model SOURCE"):
        model_manifest.manifest(model_manifest.Path(folder))


def test_the_mistral_tokenizer_needs_its_file(model_folder):
    with refuses("model-incomplete", "tekken"):
        model_manifest.manifest(model_folder, tekken=True)
    (model_folder / "tekken.json").write_text("{}")
    assert "tekken.json" in model_manifest.manifest(model_folder, tekken=True)["files"]


GGUF = b"GGUF" + (3).to_bytes(4, "little") + bytes(16)


def test_a_gguf_file_and_its_directory_are_the_same_model(tmp_path):
    file = tmp_path / "small.gguf"
    file.write_bytes(GGUF)
    manifest = model_manifest.manifest(file)
    assert (manifest["format"], set(manifest["files"]), manifest["bytes"]) == ("gguf", {"small.gguf"}, len(GGUF))
    assert model_manifest.manifest(tmp_path) == manifest


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(8), b"PK\x03\x04" + bytes(8)])
def test_a_file_without_the_gguf_magic_is_refused(tmp_path, content):
    (tmp_path / "small.gguf").write_bytes(content)
    with refuses("model-damaged"):
        model_manifest.manifest(tmp_path)


def test_of_several_gguf_files_one_has_to_be_named(tmp_path):
    for name in ("small-Q4_K_M.gguf", "small-Q8_0.gguf"):
        (tmp_path / name).write_bytes(GGUF)
    with refuses("model-incomplete", r"small-Q4_K_M.gguf, small-Q8_0.gguf"):
        model_manifest.manifest(tmp_path)
    assert set(model_manifest.manifest(tmp_path / "small-Q8_0.gguf")["files"]) == {"small-Q8_0.gguf"}


def test_the_parts_of_a_gguf_model_are_one_model(tmp_path):
    for part in (1, 2):
        (tmp_path / f"large-0000{part}-of-00002.gguf").write_bytes(GGUF)
    assert len(model_manifest.gguf_files(tmp_path)) == 2
    (tmp_path / "large-00002-of-00002.gguf").unlink()
    with refuses("model-incomplete", r"large-00002-of-00002.gguf"):
        model_manifest.gguf_files(tmp_path)


def test_of_many_missing_files_the_first_are_named(tmp_path):
    (tmp_path / "large-00001-of-90000.gguf").write_bytes(GGUF)
    with refuses("model-incomplete", r"large-00006-of-90000.gguf and 89994 more\. "):
        model_manifest.gguf_files(tmp_path)


def test_pickles_alone_are_refused_unless_allowed(model_folder):
    (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
    with refuses("model-unsafe", r"pytorch_model.bin"):
        model_manifest.manifest(model_folder)
    assert model_manifest.manifest(model_folder, pickle=True)["format"] == "pickle"


def test_hidden_files_are_not_part_of_a_model(model_folder):
    before = model_manifest.manifest(model_folder)
    (model_folder / ".env").write_text("SECRET=1")
    (model_folder / ".git").mkdir()
    (model_folder / ".git" / "config").write_text("url = https://user:secret@example.com")
    assert model_manifest.manifest(model_folder) == before


def test_the_snapshot_of_a_hubs_cache_is_a_model(model_folder, tmp_path):
    snapshot = tmp_path / "models--org--small" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    blobs = tmp_path / "models--org--small" / "blobs"
    blobs.mkdir()
    for number, file in enumerate(sorted(model_folder.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    assert set(model_manifest.manifest(snapshot)["files"]) == {"config.json", "model.safetensors", "tokenizer.json"}


@pytest.mark.parametrize("target", ["/etc/passwd", "../secret.json", "/dev/zero", "gone.json"])
def test_a_link_outside_of_the_model_is_refused(model_folder, target):
    (model_folder.parent / "secret.json").write_text("{}")
    (model_folder / "notes.json").symlink_to(target)
    with refuses("model-unsafe", r"notes.json is"):
        model_manifest.manifest(model_folder)


def test_a_linked_directory_is_refused(model_folder):
    (model_folder / "more").mkdir()
    (model_folder / "other").symlink_to("more")
    with refuses("model-unsafe", r"other is not a regular file"):
        model_manifest.manifest(model_folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "extra", "model.safetensors.index.json"])
@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFSOCK])
def test_a_pipe_is_refused_without_blocking(model_folder, name, kind):
    (model_folder / name).unlink(missing_ok=True)
    os.mknod(model_folder / name, 0o644 | kind)
    with pytest.raises(Refusal) as refused:
        model_manifest.manifest(model_folder)
    assert refused.value.refusal in ("model-unsafe", "model-incomplete")
