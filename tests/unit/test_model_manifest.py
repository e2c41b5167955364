"""roles/model_weights/files/model_manifest.py: whole folders have a manifest, all others a refusal with its cure."""

import json

import pytest

from tests.unit.conftest import safetensors
from tests.unit.roles import program

model_manifest = program("model_weights", "model_manifest")


def test_a_whole_folder_has_a_manifest(model_folder):
    manifest = model_manifest.manifest(model_folder)
    assert set(manifest["files"]) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert manifest["bytes"] == sum(file.stat().st_size for file in model_folder.iterdir())


def test_the_digest_depends_on_content_and_names_alone(model_folder, tmp_path):
    before = model_manifest.manifest(model_folder)["digest"]
    moved = model_folder.rename(tmp_path / "elsewhere")
    assert model_manifest.manifest(moved)["digest"] == before
    data = bytearray((moved / "model.safetensors").read_bytes())
    data[-1] = 1
    (moved / "model.safetensors").write_bytes(data)
    assert model_manifest.manifest(moved)["digest"] != before


def test_remembered_digests_notice_a_change(model_folder, tmp_path, monkeypatch):
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
def test_a_broken_folder_is_refused(model_folder, breakage, refusal):
    breakage(model_folder)
    with pytest.raises(model_manifest.Fault, match=rf"^\[{refusal}\] "):
        model_manifest.manifest(model_folder)


@pytest.mark.parametrize("folder", ["", "/no/such/folder"])
def test_a_missing_folder_is_refused(folder):
    with pytest.raises(model_manifest.Fault, match=r"^\[model-missing\] .*--model FOLDER"):
        model_manifest.manifest(model_manifest.Path(folder))


def test_the_mistral_tokenizer_needs_its_file(model_folder):
    with pytest.raises(model_manifest.Fault, match="tekken"):
        model_manifest.manifest(model_folder, tekken=True)
    (model_folder / "tekken.json").write_text("{}")
    assert "tekken.json" in model_manifest.manifest(model_folder, tekken=True)["files"]
