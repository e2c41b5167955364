"""zorac_deploy/models/host.py: the host program, run on this machine instead of a host."""

import subprocess
from types import SimpleNamespace

import pytest

from tests.conftest import safetensors
from tests.unit.test_model_store import bring
from zorac_deploy.errors import Refused, ZoracDeployError
from zorac_deploy.models import host


class Here:
    """A connection to this machine, with the models in a directory of the test."""

    def __init__(self, models):
        self.target = SimpleNamespace(name="here", models=str(models))

    def run(self, *words):
        return subprocess.run(words, capture_output=True, text=True, check=False)

    def check(self):
        pass


@pytest.fixture
def here(tmp_path):
    return Here(tmp_path)


def test_models_are_listed_verified_and_removed(here, tmp_path):
    folder = bring(tmp_path, "small", {"model.safetensors": safetensors(5000)})
    (listed,) = host.listed(here)
    assert (listed.name, listed.path, listed.partial) == ("small", str(folder), False)
    assert [each.good for each in host.verify(here, "")] == [True]
    (folder / "model.safetensors").write_bytes(b"x")
    assert [each.damaged for each in host.verify(here, "small")] == [["model.safetensors"]]
    assert host.clean(here).folders == []
    assert host.remove(here, "small", force=False).folders == [folder.name]
    assert host.listed(here) == []


def test_a_refusal_of_the_program_is_a_refusal_of_the_cli(here):
    with pytest.raises(Refused) as refused:
        host.remove(here, "none", force=False)
    assert refused.value.refusal == "model-missing"
    assert str(refused.value).startswith("model not found in")


def test_a_program_that_fails_is_reported(here):
    here.run = lambda *_: subprocess.CompletedProcess([], 1, "", "python3: out of memory")
    with pytest.raises(ZoracDeployError, match="out of memory") as fault:
        host.listed(here)
    assert not isinstance(fault.value, Refused)
