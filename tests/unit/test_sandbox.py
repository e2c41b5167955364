"""zorac_deploy/sandbox: what can be tested without a host."""

import subprocess
import sys

import pytest

from zorac_deploy.sandbox.host import Sandbox


def sandbox(pid):
    return Sandbox("h-test", "debian12", "shared", "127.0.0.1", 2222, 1, pid)


@pytest.mark.parametrize(
    ("words", "running"), [(["--machine=h-test"], True), (["--machine=h-tes"], False), (["h-test"], False)]
)
def test_another_process_with_the_supervisors_pid_is_no_running_host(words, running):
    with subprocess.Popen([sys.executable, "-c", "input()", *words], stdin=subprocess.PIPE) as process:
        assert sandbox(process.pid).running is running
        process.kill()
    assert not sandbox(process.pid).running
