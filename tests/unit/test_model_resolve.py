"""zorac_deploy/models/: the hub's real client with a fake hub, and what is known without a download."""

import dataclasses
import json
from pathlib import Path

import pytest

from tests.conftest import safetensors
from tests.hub_server import GATED, Fault, Hub
from tests.unit.models import LLAMA_8B
from tests.unit.test_model_manifest import GGUF
from zorac_deploy.errors import Refused
from zorac_deploy.models import resolve
from zorac_deploy.planner import Card, Engine, Flags, Setup, fit

FILES = {
    "config.json": json.dumps(LLAMA_8B).encode(),
    "tokenizer.json": b"{}",
    "model.safetensors": safetensors(300_000),
}
OTHER = {"README.md": b"read me", "pytorch_model.bin": b"pickled", "picture.png": b"png"}
pytestmark = pytest.mark.usefixtures("new_user")


@pytest.fixture
def hub(monkeypatch):
    with Hub("org/name", {**FILES, **OTHER}) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.endpoint)
        yield made


def local(folder, files):
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return resolve(str(folder))


def test_a_model_from_any_source_is_the_same(hub, tmp_path):
    here = local(tmp_path / "here", FILES)
    found = resolve("hf://org/name")
    web = resolve(f"{hub.endpoint}/web/org/name/")
    assert found.manifest["digest"] == here.manifest["digest"] == web.manifest["digest"]
    assert found.manifest["files"] == here.manifest["files"] == web.manifest["files"]
    assert (found.kind, here.kind, web.kind) == ("fetch", "copy", "fetch")
    assert found.source == f"hf://org/name@{hub.head}"
    assert set(found.urls) == set(FILES)


def test_the_weights_are_planned_without_a_download(hub):
    found = resolve("hf://org/name")
    stored = [path for _, path in hub.asked if path.startswith("/store/")]
    assert len(stored) == 1  # the header
    plan = fit(Path(found.folder), Setup(Card(80.0), Engine.parse("0.26.0"), Flags()))
    assert any("may be of" in note for note in plan.summary()["notes"])  # the files were read


def test_a_revision_is_resolved_once(hub):
    first = resolve("hf://org/name")
    hub.commit({**FILES, "config.json": b'{"model_type": "mistral"}'})
    asked = len(hub.asked)
    assert resolve("hf://org/name") == first
    assert len(hub.asked) == asked
    new = resolve("hf://org/name", refresh=True)
    assert new.source == f"hf://org/name@{hub.head}" != first.source
    assert resolve("hf://org/name") == new
    assert resolve(first.source).manifest == first.manifest


def test_an_empty_cache_changes_no_revision(hub, tmp_path):
    first = resolve("hf://org/name")
    hub.commit({**FILES, "config.json": b'{"model_type": "mistral"}'})
    (tmp_path / "XDG_CACHE_HOME").rename(tmp_path / "gone")
    again = resolve("hf://org/name")
    assert dataclasses.replace(again, folder=first.folder) == first


def test_a_gguf_file_is_a_model_by_itself(hub, tmp_path):
    hub.commit({"Q4/small-Q4.gguf": GGUF, "small-Q8.gguf": GGUF + b"8"})
    with pytest.raises(Refused, match="several GGUF"):
        resolve("hf://org/name")
    found = resolve("hf://org/name/Q4/small-Q4.gguf")
    assert (found.manifest["format"], set(found.manifest["files"])) == ("gguf", {"small-Q4.gguf"})
    assert found.manifest["digest"] == local(tmp_path / "here", {"small-Q4.gguf": GGUF}).manifest["digest"]
    assert found.urls["small-Q4.gguf"].endswith("/Q4/small-Q4.gguf")


@pytest.mark.parametrize(
    ("source", "refusal"),
    [
        ("hf://org/other", "model-missing"),
        ("hf://org/name@nowhere", "model-missing"),
        ("hf://org/name/none.gguf", "model-missing"),
        ("WEB/none/", "model-missing"),
    ],
)
def test_a_missing_model_is_refused(hub, source, refusal):
    with pytest.raises(Refused) as fault:
        resolve(source.replace("WEB", hub.endpoint))
    assert fault.value.refusal == refusal


@pytest.mark.parametrize(
    ("fault", "refusal"),
    [
        (GATED, "model-gated"),
        (Fault(401, {"X-Error-Code": "RepoNotFound"}), "model-missing"),  # the hub's answer for a private model
        (Fault(403), "model-gated"),
        (Fault(400), "model-unreachable"),
    ],
)
def test_the_hubs_refusals_are_reported(hub, fault, refusal):
    hub.fault = lambda *_: fault
    with pytest.raises(Refused) as refused:
        resolve("hf://org/name")
    assert refused.value.refusal == refusal


def test_a_gated_model_needs_a_token(hub, monkeypatch):
    hub.token = "hf_secret"  # noqa: S105 - of nobody
    with pytest.raises(Refused, match="accept their terms") as refused:
        resolve("hf://org/name")
    assert refused.value.refusal == "model-gated"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert resolve("hf://org/name").kind == "fetch"


def test_an_unreachable_hub_is_reported(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Refused, match="HF_ENDPOINT") as refused:
        resolve("hf://org/name")
    assert refused.value.refusal == "model-unreachable"


@pytest.mark.parametrize(
    ("files", "refusal"),
    [
        ({"config.json": b"{}", "tokenizer.json": b"{}", "pytorch_model.bin": b"x"}, "model-unsafe"),
        ({"config.json": b"[]", "model.safetensors": safetensors()}, "model-damaged"),
        ({"tokenizer.json": b"{}", "model.safetensors": safetensors()}, "model-incomplete"),
        ({**FILES, "model.safetensors": safetensors()[:-1]}, "model-damaged"),
        ({**FILES, "model.safetensors": b"x"}, "model-damaged"),
        ({"README.md": b"no model"}, "model-incomplete"),
    ],
)
def test_an_invalid_model_is_refused_before_the_download(hub, files, refusal):
    hub.commit(files)
    with pytest.raises(Refused) as fault:
        resolve("hf://org/name")
    assert fault.value.refusal == refusal


def test_small_files_changed_in_transit_are_refused(hub):
    hub.fault = lambda _, path: Fault(after=1, how="wrong") if path.endswith("tokenizer.json") else None
    with pytest.raises(Refused, match=r"tokenizer\.json") as fault:
        resolve("hf://org/name")
    assert fault.value.refusal == "model-damaged"


@pytest.mark.parametrize("manifest", [b"", b"[]", b'{"files": {"a": {"size": -1, "sha256": "x"}}}'])
def test_an_invalid_manifest_is_refused(hub, manifest, monkeypatch):
    monkeypatch.setattr(hub.RequestHandlerClass, "_web", lambda self, _, fault: self._send(manifest, fault))
    with pytest.raises(Refused, match="is not a manifest"):
        resolve(f"{hub.endpoint}/web/org/name/")
