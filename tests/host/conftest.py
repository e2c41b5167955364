import subprocess

import pytest

from zorac_deploy.sandbox import host


@pytest.fixture
def run(tmp_path):
    """Run zorac-deploy as a user does, from a directory that is not the checkout."""

    def ran(*arguments, **kwargs):
        return subprocess.run(
            ["zorac-deploy", *map(str, arguments)], cwd=tmp_path, capture_output=True, text=True, check=False, **kwargs
        )

    return ran


@pytest.fixture(scope="session")
def offline():
    """A host with systemd that reaches only this machine: enough for facts and refusals."""
    yield host.up("test-offline", network="isolated")
    host.down("test-offline")


@pytest.fixture
def inside():
    """Run a command on a sandbox host, as its user."""

    def ran(sandbox, *command):
        return subprocess.run(host.ssh_command(sandbox, *command), capture_output=True, text=True, check=True).stdout

    return ran
