"""The host's lock lives exactly as long as its holder."""

import subprocess
import sys
import time

import pytest

from zorac_deploy import connection, inventory
from zorac_deploy.errors import HostBusy

pytestmark = pytest.mark.host

_HOLDER = """
import pathlib, sys, time
from zorac_deploy import connection, inventory
target = inventory.read([pathlib.Path(sys.argv[1])]).target(None)
with connection.opened(target) as opened, opened.lock("a test"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def opened(offline):
    with connection.opened(inventory.read([offline.inventory]).target(None)) as made:
        yield made


def test_a_killed_holder_releases_the_lock(offline, opened):
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(offline.inventory)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(HostBusy, match=rf"process {holder.pid}\) for 'a test' since"), opened.lock("another"):
        pass
    holder.kill()
    holder.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            with opened.lock("the next one"):
                return
        except HostBusy:
            time.sleep(0.2)
    pytest.fail("the lock outlived its holder")


def test_another_user_can_neither_hold_nor_block_the_lock(opened, offline, inside):
    # In a directory writable for all, any user may create the lock's file. `inside` is a user without root's rights.
    inside(offline, "mkfifo /run/lock/zorac-deploy.lock /run/lock/zorac-deploy-activation.lock")
    try:
        with opened.lock("a test"):
            held = inside(offline, "flock --nonblock /run/zorac-deploy/lock echo held || echo refused")
            assert held.strip() == "refused"
            with pytest.raises(HostBusy, match="for 'a test' since"), opened.lock("another"):
                pass
    finally:
        inside(offline, "rm /run/lock/zorac-deploy.lock /run/lock/zorac-deploy-activation.lock")
