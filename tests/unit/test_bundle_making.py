"""How a bundle is created, with fakes for the downloads."""

import shutil
from pathlib import Path

import pytest

from tests.hub_server import Hub
from zorac_deploy import bundle as bundles
from zorac_deploy.bundle import packages, unpacking, wheels
from zorac_deploy.errors import Refused, ZoracDeployError

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def downloads(monkeypatch):
    """Fakes that download one wheel and one package; their arguments."""
    asked = {}

    def fake_wheels(engine, system, indexes, folder, on_step):
        asked["wheels"] = (engine.lock, system, indexes)
        (folder / "wheels").mkdir(exist_ok=True)
        (folder / "wheels" / "some.whl").write_bytes(b"wheel")
        if wheels.serves_gguf(engine.lock):
            (folder / "sources").mkdir(exist_ok=True)
            (folder / "sources" / "llama.tar.gz").write_bytes(b"source")
        on_step("download the wheels", "some")

    def fake_packages(names, folder, _):
        asked["packages"] = list(names)
        folder.mkdir(exist_ok=True)
        (folder / "Packages").write_text("")
        return tuple(names)

    monkeypatch.setattr(wheels, "download", fake_wheels)
    monkeypatch.setattr(packages, "download", fake_packages)
    monkeypatch.setattr(packages, "system", lambda: "debian12")
    return asked


def wish(folder, **changes):
    return bundles.Wish(**{"engine": "cpu-0.32.0", "system": "debian12", "model": str(folder)} | changes)


def test_a_bundle_is_created_and_unpacked(tmp_path, model_folder, downloads, cache):
    made = bundles.create(wish(model_folder), tmp_path / "out", 500)
    assert made == bundles.read(tmp_path / "out")
    assert (made.engine.lock, made.python, made.model.format) == ("cpu-0.32.0", "3.11", "safetensors")
    assert made.packages == ("python3-venv", "libnuma1")
    assert downloads["packages"] == ["python3-venv", "libnuma1"]
    assert downloads["wheels"][2] == ["https://download.pytorch.org/whl/cpu"]
    assert not list((cache / "bundle-downloads").iterdir())
    said = bundles.unpack(tmp_path / "out")
    source = Path(said["model_weights_source"])
    assert (source.name, said["llama_cpp_archive"]) == ("model", "")
    assert {path.name: path.read_bytes() for path in source.iterdir()} == {
        path.name: path.read_bytes() for path in model_folder.iterdir()
    }


@pytest.mark.usefixtures("downloads")
def test_a_hubs_model_is_bundled_at_its_commit(tmp_path, model_folder, monkeypatch):
    with Hub("org/name", {path.name: path.read_bytes() for path in model_folder.iterdir()}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        made = bundles.create(wish("hf://org/name"), tmp_path / "out", 500)
    assert (made.model.name, made.model.source) == ("name", f"hf://org/name@{hub.head}")
    source = Path(bundles.unpack(tmp_path / "out")["model_weights_source"])
    assert (source / "model.safetensors").read_bytes() == (model_folder / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("downloads")
def test_the_same_content_gives_the_same_bundle(tmp_path, model_folder):
    for name in ("one", "two"):
        bundles.create(wish(model_folder), tmp_path / name, 500)
    assert bundles.digest(tmp_path / "one") == bundles.digest(tmp_path / "two")


@pytest.mark.usefixtures("downloads")
def test_a_gguf_file_is_a_model_too(tmp_path):
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF\x03\x00\x00\x00 and more")
    bundles.create(wish(tmp_path / "tiny.gguf", engine="llama-cpp-cpu-0.3.36"), tmp_path / "out", 500)
    said = bundles.unpack(tmp_path / "out")
    assert Path(said["model_weights_source"]).read_bytes().startswith(b"GGUF")
    assert Path(said["llama_cpp_archive"]).read_bytes() == b"source"


def test_missing_content_is_reported(tmp_path, model_folder, downloads):
    made = bundles.create(wish(model_folder, engine="cuda-0.26.0", system="ubuntu24.04"), tmp_path / "out", 500)
    assert (made.python, made.packages, downloads["packages"]) == ("3.12", (), [])
    assert made.absent[0].startswith("Debian packages (this machine runs debian12)")
    assert "an NVIDIA driver" in made.absent[1]
    more = ("nvidia-driver-cuda",)
    made = bundles.create(wish(model_folder, engine="cuda-0.26.0", more_packages=more), tmp_path / "more", 500)
    assert made.absent == ()
    assert downloads["packages"] == ["python3-venv", "python3-dev", "g++", "libc6-dev", "nvidia-driver-cuda"]


@pytest.mark.parametrize(
    ("changes", "refusal", "says"),
    [
        ({"engine": "cpu-0.0.1"}, "engine-unknown", "Choose one of: cpu-0.32.0, cuda-0.26.0"),
        (
            {"system": "debian13"},
            "engine-no-python",
            "debian13 has Python 3.13, but the engine cpu-0.32.0 is locked for 3",
        ),
        ({"model": "/no/such"}, "model-missing", "model not found on this machine: /no/such"),
        (
            {"engine": "llama-cpp-cpu-0.3.36"},
            "format-unsupported",
            "is a safetensors model, .* Choose an engine of vLLM",
        ),
        ({"with_packages": False, "more_packages": ("g++",)}, "settings-invalid", "--package needs a machine"),
    ],
)
def test_an_invalid_bundle_is_refused_before_the_download(tmp_path, model_folder, downloads, changes, refusal, says):
    with pytest.raises(Refused, match=says) as refused:
        bundles.create(wish(model_folder, **changes), tmp_path / "out", 500)
    assert refused.value.refusal == refusal
    assert downloads == {}
    assert not (tmp_path / "out").exists()


def test_an_invalid_model_name_is_refused_before_the_download(tmp_path, model_folder, downloads):
    named = model_folder.rename(tmp_path / "{{ 1 }}")
    with pytest.raises(Refused, match=r"'\{\{ 1 \}\}'.*Rename the model"):
        bundles.create(wish(named), tmp_path / "out", 500)
    assert not downloads


def test_an_existing_output_is_not_changed(tmp_path, model_folder, downloads):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(Refused, match="out exists"):
        bundles.create(wish(model_folder), tmp_path / "out", 500)
    assert (tmp_path / "out" / "precious").exists()
    assert downloads == {}


def test_an_output_that_cannot_be_written(model_folder, downloads):
    with pytest.raises(ZoracDeployError, match=r"cannot create the bundle: .*/proc/out"):
        bundles.create(wish(model_folder), Path("/proc/out"), 500)
    assert downloads == {}


@pytest.mark.usefixtures("full_disk")
def test_no_space_for_the_download(tmp_path, model_folder, downloads):
    with pytest.raises(Refused, match="the download needs"):
        bundles.create(wish(model_folder), tmp_path / "out", 500)
    assert downloads == {}


@pytest.mark.usefixtures("downloads")
def test_no_space_for_the_bundle(tmp_path, model_folder, cache, monkeypatch):
    usage = shutil.disk_usage("/")
    free = lambda folder: usage._replace(free=5 if "out" in str(folder) else 2**40)  # noqa: E731
    monkeypatch.setattr(unpacking.shutil, "disk_usage", free)
    with pytest.raises(Refused, match=r"the bundle needs .* GiB under .*/out"):
        bundles.create(wish(model_folder), tmp_path / "out", 500)
    assert list((cache / "bundle-downloads").rglob("some.whl"))  # stored for the next try


@pytest.mark.parametrize("at", ["download the wheels", "write the parts"])
@pytest.mark.usefixtures("downloads")
def test_an_interrupted_creation_leaves_no_bundle_and_keeps_the_downloads(tmp_path, model_folder, cache, at):
    def stop(doing, _):
        if doing == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bundles.create(wish(model_folder), tmp_path / "out", 500, stop)
    assert not list(tmp_path.glob("out*"))
    assert list((cache / "bundle-downloads").rglob("some.whl"))
    (tmp_path / "out.partial").mkdir()  # as a killed run leaves it
    bundles.create(wish(model_folder), tmp_path / "out", 500)
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.usefixtures("downloads")
def test_a_model_that_changes_while_it_is_read(tmp_path, model_folder):
    def change(doing, _):
        if doing == "download the wheels":
            (model_folder / "config.json").write_text('{"model_type": "other"}')

    with pytest.raises(Refused, match="changed while it was read"):
        bundles.create(wish(model_folder), tmp_path / "out", 500, change)
    assert not list(tmp_path.glob("out*"))


@pytest.mark.usefixtures("downloads")
def test_a_gguf_file_in_a_hubs_cache_is_bundled_by_its_name(tmp_path):
    repository = tmp_path / "models--org--small"
    for folder in ("blobs", "snapshots/0123abc"):
        (repository / folder).mkdir(parents=True)
    (repository / "blobs" / "4567").write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    file = repository / "snapshots" / "0123abc" / "small.gguf"
    file.symlink_to("../../blobs/4567")
    bundles.create(wish(file, engine="llama-cpp-cpu-0.3.36"), tmp_path / "out", 500)
    assert Path(str(bundles.unpack(tmp_path / "out")["model_weights_source"])).name == "small.gguf"
