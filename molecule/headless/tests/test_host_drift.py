"""Drift of the driver, the desktop and the GPUs is reported and restored; after the tests of the host as deployed."""

import os
import re
from pathlib import Path

import pytest
import yaml

from tests import drift
from zorac_deploy.sandbox import host as sandbox

_NAME = "molecule-headless"
_HERE = Path(__file__).resolve().parent


@pytest.fixture
def inventory(tmp_path):
    """The inventory for the CLI: without the look-up of the kernel, whose result could change between runs."""
    kernel = (Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "kernel").read_text()
    variables = yaml.safe_load(sandbox.find(_NAME).inventory.read_text())["cpu"]["hosts"][_NAME]
    variables |= yaml.safe_load((_HERE.parent / f"host_vars/{_NAME}.yml").read_text())
    variables["card_facts"] = re.sub(r"lookup\('file'.*?'/kernel'\)", f"'{kernel}'", variables["card_facts"])
    path = tmp_path / "inventory.yml"
    path.write_text(yaml.safe_dump({"headless": {"hosts": {_NAME: variables}}}))
    return path


def test_drift_is_reported_and_restored_and_a_full_run_agrees(inventory):
    deployed = drift.Host(_NAME, inventory)
    deployed.up()  # with this inventory, which is not molecule's
    deployed.require_healed(yaml.safe_load((_HERE / "drift.yml").read_text()))
    deployed.require_converged()
