"""zorac_host/model_store.py: a host's models are verified and removed, except those in use by a generation."""

import json
import re

import pytest
import yaml

from tests.conftest import safetensors
from zorac_deploy import content
from zorac_host import model_manifest, model_store


@pytest.fixture(autouse=True)
def etc(tmp_path, monkeypatch):
    """A host without a deployment."""
    monkeypatch.setattr(model_store, "_GENERATIONS", tmp_path / "generations")
    return tmp_path / "generations"


@pytest.fixture
def model(tmp_path):
    """A model on a host, as the role installs it."""
    files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": safetensors(9000)}
    return bring(tmp_path / "models", "small", files)


def bring(root, name, files, record=True, partial=False):
    made = root / "made"
    for path, data in files.items():
        (made / path).parent.mkdir(parents=True, exist_ok=True)
        (made / path).write_bytes(data)
    hashed = {path: {"size": len(data), "sha256": model_manifest._sha256(made / path)} for path, data in files.items()}
    about = {"source": "hf://org/small@abc", "format": "safetensors", "bytes": sum(map(len, files.values()))}
    if record:
        (made / ".zorac-deploy.json").write_text(json.dumps({**about, "files": hashed}))
    return made.rename(root / f"{name}-{model_manifest.digest(hashed)[:12]}{'.partial' if partial else ''}")


def used(etc, model, number):
    (etc / str(number)).mkdir(parents=True)
    (etc / str(number) / "generation.json").write_text(json.dumps({"number": number, "disk": [str(model)]}))


def test_a_name_with_a_newline_is_one_of_ours(tmp_path):
    odd = bring(tmp_path / "models", "two\nlines", {"a.gguf": b"a"})
    assert [each["folder"] for each in model_store.listed(odd.parent)] == [odd.name]
    tasks = yaml.safe_load((content.root() / "roles/model_weights/tasks/remove.yml").read_text())
    (pattern,) = (
        task["ansible.builtin.find"]["patterns"] for task in tasks[-1]["block"] if "ansible.builtin.find" in task
    )
    names = [odd.name, f"{odd.name}.partial", f"{odd.name}.damaged", "somebody-elses", f"{odd.name}.damaged\n"]
    assert [bool(re.match(pattern, name)) for name in names] == [True, True, True, False, False]


def test_models_are_listed(model, etc):
    (model.parent / "somebody-elses").mkdir()
    bring(model.parent, "half", {"a.safetensors": b"a" * 5000}, partial=True)
    used(etc, model, 3)
    used(etc, model, 7)
    half, small = model_store.listed(model.parent)
    assert (small["name"], small["folder"], small["format"]) == ("small", model.name, "safetensors")
    assert (small["source"], small["generations"], small["partial"]) == ("hf://org/small@abc", [3, 7], False)
    assert small["bytes"] == small["total"] > 9000
    assert (half["name"], half["partial"], half["fetching"], half["total"]) == ("half", True, False, 5000)


def test_no_models(tmp_path):
    assert model_store.listed(tmp_path / "nowhere") == []
    assert model_store.verify(tmp_path / "nowhere", "") == []


def test_a_complete_model_is_good(model):
    assert model_store.verify(model.parent, "small") == [
        {"folder": model.name, "good": True, "files": 3, "damaged": [], "missing": []}
    ]


def test_every_damage_is_reported(model):
    (model / "model.safetensors").write_bytes(safetensors(9000)[:-1] + b"x")
    (model / "tokenizer.json").unlink()
    found = model_store.verify(model.parent, model.name)[0]
    assert (found["good"], found["damaged"], found["missing"]) == (False, ["model.safetensors"], ["tokenizer.json"])


def test_a_model_without_a_record_is_verified_by_its_name(tmp_path):
    old = bring(tmp_path, "old", {"config.json": b"{}"}, record=False)
    assert model_store.verify(tmp_path, "old")[0]["good"]
    (old / "config.json").write_bytes(b"[]")
    assert not model_store.verify(tmp_path, "old")[0]["good"]


def test_a_model_in_use_is_not_removed_without_force(model, etc):
    used(etc, model, 3)
    with pytest.raises(model_store.Fault, match=r"generation 3.*--force.*model-in-use"):
        model_store.remove(model.parent, "small", False)
    assert model.is_dir()
    assert model_store.remove(model.parent, "small", True)["folders"] == [model.name]
    assert not model.exists()


def test_an_unused_model_is_removed(model):
    other = bring(model.parent, "other", {"config.json": b"{}"})
    removed = model_store.remove(model.parent, model.name, False)
    assert removed["folders"] == [model.name]
    assert removed["bytes"] > 9000
    assert other.is_dir()


@pytest.mark.parametrize("name", ["none", "small-", "..", "/"])
def test_a_missing_model_is_reported(model, name):
    with pytest.raises(model_store.Fault, match=r"small-.*model-missing"):
        model_store.remove(model.parent, name, False)


def test_only_partial_models_are_cleaned(model):
    half = bring(model.parent, "half", {"a.safetensors": b"a"}, partial=True)
    assert model_store.clean(model.parent)["folders"] == [half.name]
    assert model.is_dir()
    assert not half.exists()
