import json
import os
import shutil
import struct

import platformdirs
import pytest
from hypothesis import settings

from tests.unit.generations import made
from tests.unit.systemd import FakeSystemd
from zorac_host import foreign, lock, proof, service, store

# A busy machine is not a failure, and examples are written into the test, not into a directory.
settings.register_profile("ours", deadline=None, database=None)
settings.load_profile("ours")

# What the user has set for zorac-deploy is not for the tests.
for _name in [name for name in os.environ if name.startswith(("ZORAC_", "HF_"))]:
    del os.environ[_name]


def safetensors(data_bytes=64, header=None):
    """The bytes of a safetensors file with one tensor of `data_bytes` bytes."""
    header = header or {"weight": {"dtype": "BF16", "shape": [data_bytes // 2], "data_offsets": [0, data_bytes]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data_bytes)


@pytest.fixture
def model_folder(tmp_path):
    """A complete model directory."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors())
    return folder


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """A host's disk without a generation."""
    for name in ("etc", "state", "units"):
        (tmp_path / name).mkdir()
        monkeypatch.setattr(store, name.upper(), tmp_path / name)
    monkeypatch.setattr(foreign, "ETC", tmp_path / "etc")
    monkeypatch.setattr(foreign, "UNITS", tmp_path / "units")
    monkeypatch.setattr(foreign, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(foreign, "STORE", tmp_path / "state" / "replaced")
    monkeypatch.setattr(foreign, "LOAD_PATH", {tmp_path / "units": True, tmp_path / "usr": False})
    monkeypatch.setattr(store, "CURRENT", tmp_path / "etc" / "current")
    monkeypatch.setattr(store, "KEY_FILE", tmp_path / "etc" / "api-key")
    monkeypatch.setattr(store, "_PENDING", tmp_path / "state" / "activation.json")
    monkeypatch.setattr(store, "_WATCH", tmp_path / "state" / "watchdog.json")
    return tmp_path


@pytest.fixture
def host(disk, monkeypatch):
    """The fake, with three real generations, none of them activated."""
    host = FakeSystemd()
    for name in ("systemctl", "shown", "running", "processes", "stop", "start", "wait_until_serving"):
        monkeypatch.setattr(service, name, getattr(host, name))
    for name in ("load", "wait_for_memory", "require_free_port", "stay_if_host_stops"):
        monkeypatch.setattr(service, name, lambda *_: None)
    monkeypatch.setattr(service, "cursor", lambda: "here")
    monkeypatch.setattr(service, "journal", lambda *_: host.lines)
    monkeypatch.setattr(proof, "prove", host.prove)
    monkeypatch.setattr(lock, "_RUN", disk / "run")
    monkeypatch.setattr(os, "fsync", lambda _: None)  # hundreds of disks are created here, and none loses power
    store.KEY_FILE.write_text("old")
    for number in (1, 2, 3):
        made(number)
    return host


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache, separate for this test, on a disk without syncs."""
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda _: tmp_path / "cache")
    monkeypatch.setattr(os, "fsync", lambda _: None)
    return tmp_path / "cache"


@pytest.fixture
def new_user(tmp_path, monkeypatch):
    """A user without settings and caches."""
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.delenv("HF_TOKEN", raising=False)


@pytest.fixture
def full_disk(monkeypatch):
    """A full disk."""
    usage = shutil.disk_usage("/")._replace(free=5)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
