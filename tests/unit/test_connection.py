"""The messages of ssh and sudo are told apart. tests/host uses the real ones."""

import os
import subprocess

import pytest

from zorac_deploy import connection as connections
from zorac_deploy import errors
from zorac_deploy.connection import Connection
from zorac_deploy.inventory import Target

IDENTIFICATION = "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @"
RESOLVE = "sudo: unable to resolve host tower: Name or service not known"
WRONG = "Sorry, try again.\nsudo: no password was provided\nsudo: 1 incorrect password attempt"


@pytest.fixture
def connection(tmp_path):
    return Connection(Target("tower", "headless", "192.0.2.7", user="me"), control=tmp_path)


@pytest.mark.parametrize(
    ("code", "said", "kind", "cure"),
    [
        (255, "ssh: connect to host 192.0.2.7 port 22: Connection refused", errors.HostUnreachable, "sshd runs"),
        (255, "ssh: Could not resolve hostname tower", errors.HostUnreachable, "Check its address"),
        (255, "", errors.HostUnreachable, "no reason given"),
        (255, "me@192.0.2.7: Permission denied (publickey).", errors.KeyRefused, "ssh-copy-id me@192.0.2.7"),
        (255, "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", errors.HostKeyChanged, "ssh-keygen -R 192.0.2.7"),
        (
            255,
            "bob@jump: Permission denied (publickey).\nConnection closed by UNKNOWN port 65535",
            errors.KeyRefused,
            "bob",
        ),
        (255, "Received disconnect from 192.0.2.7 port 22:2: Too many authentication failures", errors.KeyRefused, ""),
        (
            255,
            'Load key "/k": Permission denied\nme@192.0.2.7: Permission denied (publickey).',
            errors.KeyRefused,
            "(pub",
        ),
        (
            255,
            "hostkeys_foreach: Permission denied\nssh: connect: No route to host",
            errors.HostUnreachable,
            "No route",
        ),
        (255, f"{IDENTIFICATION}\nHost key verification failed.", errors.HostKeyChanged, "ssh-keygen -R 192.0.2.7"),
        (255, "sudo: x\nkex_exchange_identification: Connection closed", errors.HostUnreachable, "kex_exchange"),
        (255, "Connection timed out during banner exchange", errors.HostUnreachable, "banner"),
        (1, "sudo: a password is required", errors.SudoRefused, "--ask-become-pass"),
        (1, "sudo: a terminal is required to read the password; either use the -S option", errors.SudoRefused, "-S"),
        (1, f"{RESOLVE}\nsudo: a password is required", errors.SudoRefused, "root: sudo: a password"),
        (1, WRONG, errors.SudoRefused, "1 incorrect password attempt"),
        (
            1,
            "Sorry, user me is not allowed to execute '/bin/true' as root on tower.",
            errors.SudoRefused,
            "not allowed",
        ),
        (1, "Sorry, user me may not run sudo on tower.", errors.SudoRefused, "may not run sudo"),
        (1, "me is not in the sudoers file.  This incident will be reported.", errors.SudoRefused, "sudoers"),
        (1, 'sudo: The "no new privileges" flag is set, which prevents sudo', errors.SudoRefused, "privileges"),
        (1, "sudo: /usr/bin/sudo must be owned by uid 0 and have the setuid bit set", errors.SudoRefused, "setuid"),
        (127, "bash: line 1: sudo: command not found", errors.SudoRefused, "cannot become root"),
        (127, "env: \u2018sudo\u2019: No such file or directory", errors.SudoRefused, "cannot become root"),
        (127, "sh: 1: sudo: not found", errors.SudoRefused, "cannot become root"),
        (
            1,
            f"{RESOLVE}\ncat: /etc/zorac-deploy/api-key: No such file or directory",
            errors.ZoracDeployError,
            "api-key",
        ),
        (1, "cat: /x: Permission denied (os error 13)", errors.ZoracDeployError, "exit code 1"),
        (3, "something else", errors.ZoracDeployError, "exit code 3"),
        (2, "sudo: a password is required", errors.ZoracDeployError, "exit code 2"),  # a program's message, not sudo's
    ],
)
def test_each_error_has_its_class_and_cure(connection, code, said, kind, cure):
    fault = connection._fault(code, said)
    assert type(fault) is kind
    assert cure in str(fault)


def test_the_sudo_password_is_sent_on_standard_input(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    target = Target("here", "headless", "localhost", local=True)
    assert Connection(target, "secret", tmp_path).command("true")[2:4] == ["sudo", "--stdin"]
    assert Connection(target, None, tmp_path).command("true")[2:4] == ["sudo", "--non-interactive"]


def test_root_on_this_machine_needs_no_sudo(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert Connection(Target("here", "headless", "localhost", local=True), None, tmp_path).command("true") == ["true"]


def test_the_connections_repr_has_no_password(tmp_path):
    assert "secret" not in repr(Connection(Target("t", "p", "a"), "secret", tmp_path))


@pytest.mark.parametrize(
    ("address", "place"), [("::1", "[::1]:8000"), ("::", "[::]:8000"), ("192.0.2.8", "192.0.2.8:8000")]
)
def test_a_tunnel_accepts_both_address_families(connection, monkeypatch, address, place):
    asked = []

    def run(words, **_):
        asked.append(words)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr(Connection, "check", lambda _: None)
    with connection.forward(8000, address) as here:
        (tunnel,) = [words[words.index("-L") + 1] for words in asked if "-L" in words]
    assert tunnel == f"127.0.0.1:{here}:{place}"


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A connection to this machine, with the lock in a directory of the test."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(connections, "_LOCK_FOLDER", str(tmp_path / "run"))
    return Connection(Target("here", "headless", "localhost", local=True), None, tmp_path)


def test_only_its_user_can_open_the_lock_and_it_names_its_holder(here, tmp_path):
    with here.lock("zorac-deploy up"):
        assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("run", "run/lock")] == [0o700, 0o600]
        with pytest.raises(errors.HostBusy, match=r"for 'zorac-deploy up' since "), here.lock("another"):
            pass
    with here.lock("the next"):
        pass


def test_a_lock_directory_open_to_others_is_closed(here, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    with here.lock("mine"):
        assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_the_holders_name_has_no_control_characters(here, tmp_path):
    with here.lock("mine"):
        (tmp_path / "run/lock").write_text("\x1b]0;owned\x07eve\x9b31m\x7f\n")
        with pytest.raises(errors.HostBusy) as busy, here.lock("another"):
            pass
    assert str(busy.value).isprintable()
    assert "eve" in str(busy.value)


@pytest.mark.parametrize("what", ["folder", "lock"])
@pytest.mark.parametrize("kind", ["link", "fifo", "other"])
def test_an_unsafe_lock_or_directory_is_refused_and_not_changed(here, tmp_path, what, kind):
    victim, place = tmp_path / "victim", tmp_path / ("run" if what == "folder" else "run/lock")
    place.parent.mkdir(mode=0o700, exist_ok=True)
    if what == "folder":
        victim.mkdir()
    else:
        victim.write_text("precious")
    if kind == "link":
        place.symlink_to(victim)
    elif kind == "fifo":
        os.mkfifo(place)
    elif what == "folder":
        place.write_text("")
    else:
        place.mkdir()
    with pytest.raises(errors.Refused, match="is not safe") as refused, here.lock("mine"):
        pass
    assert refused.value.refusal == "lock-unsafe"
    assert list(victim.iterdir()) == [] if what == "folder" else victim.read_text() == "precious"
