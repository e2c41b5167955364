"""A bundle deploys an offline host, from a machine that reaches only the host."""

import json
import os
import re
import subprocess

import pytest

from tests.host.test_deployment import snapshot
from tests.unit.bundles import bundle
from zorac_deploy.bundle import wheels
from zorac_deploy.sandbox import host, model

pytestmark = pytest.mark.host


@pytest.fixture
def served():
    yield host.up("test-bundle", network="isolated")
    host.down("test-bundle")


@pytest.fixture
def cut_off(tmp_path, served):
    """Run zorac-deploy in the network of the isolated host, with its own cache."""

    def ran(*arguments):
        inside = ["ip", "netns", "exec", host._namespace(served.name)]
        return subprocess.run(
            [*inside, "zorac-deploy", *map(str, arguments), "--inventory", served.inventory],
            cwd=tmp_path,
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
            capture_output=True,
            text=True,
            check=False,
        )

    return ran


def test_an_offline_host_is_deployed_from_a_bundle_and_removed_without_a_trace(run, cut_off, served, inside, tmp_path):
    folder = tmp_path / "bundle"
    words = ["--engine", "cpu-0.32.0", "--system", "debian12", "--model", model.ensure(), "--part-size", "200M"]
    made = run("bundle", "create", *words, "--output", folder)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "not included" not in made.stdout
    assert max(path.stat().st_size for path in folder.iterdir()) == 200 * 2**20

    before = snapshot(served)
    nothing = subprocess.run(
        ["ip", "netns", "exec", host._namespace(served.name), "getent", "hosts", "pypi.org"], check=False
    )
    assert nothing.returncode != 0
    assert inside(served, "ls /srv") == ""  # neither wheels nor a cache of this machine

    first = cut_off("up", "--bundle", folder)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "tokens/s" in first.stdout
    left = inside(served, "ls -A /opt/zorac-deploy /var/lib/zorac-deploy").split()
    assert not {"wheels", "offline-packages"} & set(left)
    again = cut_off("up", "--bundle", folder, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["changed"] == []
    reply = cut_off("chat", "-m", "What is the capital of France?", "--max-tokens", 20)
    assert len(reply.stdout) > 10, reply.stderr

    down = cut_off("down", "--yes", "--purge")
    assert down.returncode == 0, down.stderr
    assert _without_versions(snapshot(served)) == _without_versions(before)


def _without_versions(lines):
    """The lines of a snapshot without versions: a package of the bundle may require an upgrade."""
    return {line.partition("\t")[0] for line in lines}


_RIGHT = wheels.engine("cpu-0.32.0").model_dump()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"system": "debian13"}, "is for debian13, but HOST runs debian12"),
        ({"packages": ["libnuma1"]}, "HOST lacks the packages python3-venv, .* with: --package python3-venv"),
        ({"engine": {**_RIGHT, "lock": "cuda-0.26.0"}}, "has the engine cuda-0.26.0, but HOST needs cpu"),
        ({"engine": {**_RIGHT, "lock_sha256": "0" * 64}}, "whose lock of cpu-0.32.0 differs"),
    ],
)
def test_a_bundle_for_another_system_is_refused(run, offline, inside, model_folder, tmp_path, changes, says):
    files = {f"model/M/{path.name}": path.read_bytes() for path in model_folder.iterdir()}
    right = {"engine": _RIGHT, "packages": ["libnuma1", "python3-venv"]}
    folder = bundle(tmp_path / "bundle", files, **right | changes)
    outcome = run("up", "--bundle", folder, "--inventory", offline.inventory)
    assert outcome.returncode == 87, outcome.stdout + outcome.stderr
    assert re.search(says.replace("HOST", offline.name), outcome.stderr.replace("\n", " ")), outcome.stderr
    assert inside(offline, "ls -d /opt/zorac-deploy /var/lib/zorac-deploy 2>/dev/null; true") == ""
