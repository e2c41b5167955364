"""A model is downloaded to this machine as a host does it: it is verified, resumed, and a directory or a file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import safetensors
from tests.hub_server import GATED, Fault, Hub
from zorac_deploy.errors import Refused
from zorac_deploy.models import resolve
from zorac_deploy.models.fetched import fetched

FILES = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "model.safetensors": safetensors(300_000)}


pytestmark = pytest.mark.usefixtures("new_user")


@pytest.fixture
def hub(monkeypatch):
    with Hub("org/name", FILES) as made:
        monkeypatch.setenv("HF_ENDPOINT", made.endpoint)
        yield made


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def test_a_model_is_downloaded_once_and_cached(hub):
    told = []
    folder = fetched(resolve("hf://org/name"), told.append)
    assert content(folder) == FILES
    asked = len(hub.asked)
    assert fetched(resolve("hf://org/name")) == folder
    assert len(hub.asked) == asked


def test_a_local_model_is_not_copied(model_folder):
    assert fetched(resolve(str(model_folder))) == model_folder


def test_the_token_gives_access(hub, monkeypatch):
    hub.token = "hf_" + "x" * 34
    monkeypatch.setenv("HF_TOKEN", hub.token)
    assert content(fetched(resolve("hf://org/name"))) == FILES


def test_a_refused_download_has_a_reason_and_leaves_nothing(hub):
    model = resolve("hf://org/name")
    hub.fault = lambda _method, path: GATED if "/resolve/" in path else None
    with pytest.raises(Refused) as refused:
        fetched(model)
    assert refused.value.refusal == "model-gated"
    hub.fault = lambda *_: None
    assert content(fetched(model)) == FILES


def test_an_interrupted_download_resumes(hub):
    """The process gets SIGINT while the hub stalls, ends the download, and leaves the partial files."""
    hub.fault = lambda _method, path: Fault(after=200_000, how="stall") if path.startswith("/store/") else None
    program = (
        "from zorac_deploy.models import resolve\n"
        "from zorac_deploy.models.fetched import fetched\n"
        "fetched(resolve('hf://org/name'))\n"
    )
    resolve("hf://org/name")
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE)
    root = Path(os.environ["XDG_CACHE_HOME"]) / "zorac-deploy" / "fetched"
    until = time.monotonic() + 60
    while sum(path.stat().st_size for path in root.rglob("*.part")) < 200_000 and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    process.wait(120)
    assert not [path for path in root.iterdir() if path.is_dir() and not path.name.endswith(".partial")]
    hub.fault = lambda *_: None
    assert content(fetched(resolve("hf://org/name"))) == FILES
