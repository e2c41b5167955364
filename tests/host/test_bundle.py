"""A bundle for another host is refused. That one deploys an offline host is in test_deployment."""

import re

import pytest

from tests.unit.bundles import bundle
from zorac_deploy.bundle import wheels

pytestmark = pytest.mark.host


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
