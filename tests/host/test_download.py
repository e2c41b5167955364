"""A host downloads a model by itself, from a hub that requires a token, and a user manages the models there."""

import json
import os
import random
import signal
import subprocess

import pytest

from tests.conftest import safetensors
from tests.hub_server import Fault, Hub
from zorac_deploy.sandbox import host

pytestmark = pytest.mark.host

_SIZE = 12_000_000
_FILES = {
    "config.json": b'{"model_type": "llama"}',
    "tokenizer.json": b"{}",
    "model.safetensors": safetensors(_SIZE)[:-_SIZE] + random.Random(1).randbytes(_SIZE),  # noqa: S311 - any bytes
}
_TOKEN = "hf_ThisIsSecretAndOfNobody"  # noqa: S105
_SOURCE = "hf://org/small"


@pytest.fixture
def fetching():
    """A host, and a hub that it reaches."""
    with Hub("org/small", _FILES) as hub:
        hub.token = _TOKEN
        yield host.up("test-download"), hub
    host.down("test-download")


def test_a_model_is_downloaded_with_an_interruption_used_and_removed(run, inside, fetching, tmp_path, monkeypatch):
    sandbox, hub = fetching
    monkeypatch.setenv("ZORAC_DEPLOY_INVENTORY", str(sandbox.inventory))
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    for name in ("HF_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))

    gated = run("model", "pull", _SOURCE)
    assert gated.returncode == 35, gated.stdout + gated.stderr
    monkeypatch.setenv("HF_TOKEN", _TOKEN)

    # Ctrl-C after a third: the host continues by itself, and the token is stored nowhere.
    hub.fault = lambda _, path: Fault(after=_SIZE // 3, how="stall") if path.startswith("/store/") else None
    process = subprocess.Popen(
        ["zorac-deploy", "model", "pull", _SOURCE], cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=os.environ
    )
    for line in process.stdout:
        if "waiting" in line:
            break
    assert "MiB" in line
    seen = inside(sandbox, "sudo", "sh", "-c", "'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr \\\\0 \\\\n'")
    assert "model_fetch.py" in seen
    assert _TOKEN not in seen
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130

    listed = json.loads(run("model", "list", "--json").stdout)["models"]
    assert [(each["name"], each["partial"], each["fetching"]) for each in listed] == [("small", True, True)]

    # Killed, as by a reboot: the same command resumes.
    inside(sandbox, "sudo", "systemctl", "kill", "--signal=KILL", "'zorac-deploy-fetch-*'")
    hub.fault, asked = (lambda *_: None), len(hub.asked)
    again = run("model", "pull", _SOURCE)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "is stored" in again.stdout
    assert len([path for _, path in hub.asked[asked:] if path.startswith("/store/")]) == 1
    assert "nothing to do" in run("model", "pull", _SOURCE).stdout

    (found,) = json.loads(run("model", "list", "--json").stdout)["models"]
    assert (found["source"], found["partial"]) == (f"{_SOURCE}@{hub.head}", False)
    assert found["generations"] == []
    modes = inside(sandbox, "sudo", "find", found["path"], "-printf", "'%U:%g:%m\\n'").split()
    assert set(modes) == {"0:vllm:750", "0:vllm:640"}
    # On standard input: sudo writes its arguments into the journal.
    looking = f"grep -rl {_TOKEN} /run /etc /opt /var; journalctl | grep {_TOKEN}"
    command = host.ssh_command(sandbox, "sudo", "sh")
    left = subprocess.run(command, input=looking, capture_output=True, text=True, check=False).stdout
    assert left == ""

    assert run("model", "verify").returncode == 0
    inside(
        sandbox, "sudo", "sh", "-c", f"'printf x | dd of={found['path']}/model.safetensors conv=notrunc seek=999 bs=1'"
    )
    damaged = run("model", "verify")
    assert damaged.returncode == 27
    assert "model.safetensors" in damaged.stderr

    # The newest, from the hub that the inventory names.
    hub.commit({**_FILES, "tokenizer.json": b'{"version": "2"}'})
    monkeypatch.delenv("HF_ENDPOINT")
    source = tmp_path / "inventory.yml"
    setting = f"model_weights_hub_endpoint: {hub.endpoint}"
    source.write_text(
        sandbox.inventory.read_text().replace("model_weights_source:", f"{setting}\n      model_weights_source:")
    )
    newest = run("model", "pull", _SOURCE, "--refresh", "--inventory", source)
    assert newest.returncode == 0, newest.stdout + newest.stderr
    listed = json.loads(run("model", "list", "--json").stdout)["models"]
    assert f"{_SOURCE}@{hub.head}" in [each["source"] for each in listed]

    assert run("model", "remove", "small").returncode == 0
    assert json.loads(run("model", "list", "--json").stdout)["models"] == []
    assert run("down", "--yes", "--purge").returncode == 0
    assert (
        inside(
            sandbox, "sh", "-c", "'sudo ls -d /opt/zorac-deploy /run/zorac-deploy/fetch /var/lib/zorac-deploy || true'"
        )
        == ""
    )
