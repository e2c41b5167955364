"""Drift on the host is reported and restored, and `up --full` changes nothing more."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from zorac_deploy.sandbox import host as sandbox

_CASES = yaml.safe_load(Path(__file__).with_name("drift.yml").read_text())
_FOLDERS = """
E=$(dirname "$(ls /opt/zorac-deploy/engines/*/installed.txt)")
S=$(ls -d "$E"/lib/python3*/site-packages)
M=$(ls -d /var/lib/zorac-deploy/models/*[0-9a-f]/)
"""


def on(script):
    """Run a shell script as root on the host; its exit code."""
    found = sandbox.find("molecule-switch")
    command = sandbox.ssh_command(found, "sudo", "sh", "-s")
    return subprocess.run(command, input=_FOLDERS + script, capture_output=True, text=True, check=False).returncode


@pytest.fixture
def up(tmp_path):
    """Run `up`; its answer."""
    inventory = sandbox.find("molecule-switch").inventory

    def ran(*words):
        command = ["zorac-deploy", "up", "--json", *words, "--inventory", inventory]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    return ran


@pytest.mark.parametrize("group", list(_CASES))
def test_drift_is_reported_and_restored_and_a_full_run_agrees(up, group):
    up()  # whatever was deployed before
    assert up()["log"] is None, "a converged host needs no role"
    for case in _CASES[group]:
        assert on(case["break"]) == 0, case["name"]
        assert on(case["healed"]) != 0, f"{case['name']}: not broken"
    answer = up()
    named = json.dumps(answer["differences"])
    assert [case["name"] for case in _CASES[group] if case["named"] not in named] == []
    assert answer["changed"]
    assert [case["name"] for case in _CASES[group] if on(case["healed"])] == []
    assert up("--full")["changed"] == []


def test_an_earlier_versions_deployment_is_taken_over(host):
    """By one activation, because the new launcher closes routes that the earlier one left open."""
    first, second = (host.file(f"/etc/zorac-deploy/generations/{number}/generation.json") for number in (1, 2))
    if not second.exists:
        pytest.skip("the clone has not got the commit of the earlier version")
    assert not host.file("/etc/zorac-deploy/generations/1/vllm_key.py").exists
    assert host.file("/etc/zorac-deploy/generations/2/vllm_key.py").exists
    assert json.loads(first.content_string)["model_path"] == json.loads(second.content_string)["model_path"]
    assert not host.file("/usr/local/lib/zorac-deploy/zorac_host").exists


def test_a_changed_byte_is_found_by_a_deep_verification_and_restored(up):
    up()
    # The time is restored: comparing the file's metadata finds nothing.
    flip = """
    for file in "$S/vllm/version.py" "$M/model.safetensors"; do
      touch -r "$file" /tmp/time
      printf X | dd of="$file" bs=1 seek=$(($(stat -c %s "$file") - 1)) conv=notrunc status=none
      touch -r /tmp/time "$file"
    done
    """
    assert on(flip) == 0
    assert up()["differences"] == []
    answer = up("--deep")
    damaged = {Path(name).name for each in answer["differences"] for name in each["names"]}
    assert damaged == {"version.py", "model.safetensors"}
    assert up("--deep")["differences"] == []
