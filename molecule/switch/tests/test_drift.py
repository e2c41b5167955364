"""Drift on the host is reported and restored, and afterwards a full run changes nothing more."""

import json
from pathlib import Path

import pytest
import yaml

from tests import drift

_CASES = yaml.safe_load(Path(__file__).with_name("drift.yml").read_text())


@pytest.fixture
def deployed():
    return drift.Host("molecule-switch")


@pytest.mark.parametrize("group", list(_CASES))
def test_drift_is_reported_and_restored(deployed, group):
    deployed.require_healed(_CASES[group])


def test_an_earlier_versions_deployment_is_taken_over(host):
    """By one activation, because the new launcher closes routes that the earlier one left open."""
    first, second = (host.file(f"/etc/zorac-deploy/generations/{number}/generation.json") for number in (1, 2))
    if not second.exists:
        pytest.skip("the clone has not got the commit of the earlier version")
    assert not host.file("/etc/zorac-deploy/generations/1/vllm_key.py").exists
    assert host.file("/etc/zorac-deploy/generations/2/vllm_key.py").exists
    assert json.loads(first.content_string)["model_path"] == json.loads(second.content_string)["model_path"]
    assert not host.file("/usr/local/lib/zorac-deploy/zorac_host").exists


def test_a_changed_byte_is_found_by_a_deep_verification_and_restored(deployed):
    # The time is restored: comparing the file's metadata finds nothing.
    flip = """
    for file in "$S/vllm/version.py" "$M/model.safetensors"; do
      touch -r "$file" /tmp/time
      printf X | dd of="$file" bs=1 seek=$(($(stat -c %s "$file") - 1)) conv=notrunc status=none
      touch -r /tmp/time "$file"
    done
    """
    assert deployed.run(flip) == 0
    assert deployed.up()["differences"] == []
    # An interrupted repair may leave the engine without its mark; it is repaired nevertheless.
    assert deployed.run("rm $E/installed.txt") == 0
    answer = deployed.up("--deep")
    damaged = {Path(name).name for difference in answer["differences"] for name in difference["names"]}
    assert damaged == {"version.py", "model.safetensors", "installed.txt"}
    deployed.require_converged()
