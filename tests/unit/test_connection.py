"""What ssh and sudo say is told apart. The real ones are asked in tests/host."""

import pytest

from zorac_deploy import errors
from zorac_deploy.connection import Connection
from zorac_deploy.inventory import Target


@pytest.fixture
def connection(tmp_path):
    return Connection(Target("tower", "headless", "192.0.2.7", user="me"), control=tmp_path)


@pytest.mark.parametrize(
    ("code", "said", "kind", "cure"),
    [
        (255, "ssh: connect to host 192.0.2.7 port 22: Connection refused", errors.HostUnreachable, "sshd listen"),
        (255, "ssh: Could not resolve hostname tower", errors.HostUnreachable, "Is it on"),
        (255, "", errors.HostUnreachable, "no reason given"),
        (255, "me@192.0.2.7: Permission denied (publickey).", errors.KeyRefused, "ssh-copy-id me@192.0.2.7"),
        (255, "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", errors.HostKeyChanged, "ssh-keygen -R 192.0.2.7"),
        (1, "sudo: a password is required", errors.SudoRefused, "--ask-become-pass"),
        (3, "something else", errors.ZoracDeployError, "exit code 3"),
    ],
)
def test_each_fault_is_known_and_has_its_cure(connection, code, said, kind, cure):
    fault = connection._fault(code, said)
    assert type(fault) is kind
    assert cure in str(fault)


def test_a_sudo_password_is_asked_for_on_standard_input(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    target = Target("here", "headless", "localhost", local=True)
    assert Connection(target, "secret", tmp_path).command("true")[:2] == ["sudo", "--stdin"]
    assert Connection(target, None, tmp_path).command("true")[:2] == ["sudo", "--non-interactive"]


def test_root_on_this_machine_needs_no_sudo(tmp_path, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert Connection(Target("here", "headless", "localhost", local=True), None, tmp_path).command("true") == ["true"]


def test_the_password_is_not_in_the_connections_own_words(tmp_path):
    assert "secret" not in repr(Connection(Target("t", "p", "a"), "secret", tmp_path))
