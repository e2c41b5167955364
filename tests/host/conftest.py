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
def offline(worker_id):
    """A host with systemd that reaches only this machine: enough for facts and refusals."""
    made = host.up(f"test-offline-{worker_id}", network="isolated")
    yield made
    host.down(made.name)


@pytest.fixture
def inside():
    """Run a command on a sandbox host, as its user."""

    def ran(sandbox, *command):
        return subprocess.run(host.ssh_command(sandbox, *command), capture_output=True, text=True, check=True).stdout

    return ran
