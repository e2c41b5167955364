"""The host program's possible answers, and their handling."""

import json
import os
import subprocess

import pytest

from zorac_deploy import __version__, convergence, host_program, zipapp
from zorac_deploy.connection import Connection
from zorac_deploy.errors import HostProgramUnusable, NotDeployed, Refused, ZoracDeployError
from zorac_deploy.inputs import Inputs
from zorac_deploy.inventory import Target as Here

STATUS = {"current": None, "pending": None, "watchdog": {}, "generations": [], "unit": None, "health": ""}
DIGEST = "1" * 64
CONVERGED = {"inputs": DIGEST, "differences": [], "reply": {"failure": "", "seconds": 0.5}, "status": STATUS}


class Target:
    name = "tower"


class Host:
    """A host whose program gives the set answers."""

    target = Target

    def __init__(self, answer, code=0, error="", version='{"version": "0.1.0", "protocol": 2}'):
        self.answers = {"version": (0, version, ""), None: (code, answer, error)}

    def run(self, _path, *words):
        code, answer, error = self.answers.get(words[0], self.answers[None])
        return subprocess.CompletedProcess(words, code, answer, error)

    def check(self):
        pass


def asked(host):
    return host_program.ask(host, host_program.Status, "status")


def test_an_answer():
    assert asked(Host(json.dumps(STATUS))).current is None


def test_unknown_fields_are_ignored():
    assert asked(Host(json.dumps({**STATUS, "mood": "good"}))).generations == ()


@pytest.mark.parametrize(
    "error",
    [
        "sudo: /usr/local/lib/zorac-deploy/zorac-host: command not found",
        "bash: line 1: /usr/local/lib/zorac-deploy/zorac-host: No such file or directory",
    ],
)
def test_no_program(error):
    with pytest.raises(NotDeployed, match="nothing is deployed on tower"):
        asked(Host("", 127, error))


def test_a_file_missing_for_ssh_is_no_missing_program():
    with pytest.raises(ZoracDeployError, match="the host program of tower failed: mux_client"):
        asked(Host("", 1, "mux_client: /tmp/socket: No such file or directory"))


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("", "nothing"),
        ("<html>", "not JSON: '<html>'"),
        (json.dumps(STATUS)[:40], "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "its answer"),
        ('{"generations": 3, "current": null}', "generations"),
        (json.dumps({**STATUS, "current": "one"}), "current"),
    ],
)
def test_an_invalid_answer(answer, says):
    with pytest.raises(HostProgramUnusable, match=f"gave an unexpected answer: {says}.*zorac-deploy up"):
        asked(Host(answer))


@pytest.mark.parametrize(
    ("code", "error", "says"),
    [
        (
            2,
            "usage: zorac-host\nzorac-host: error: argument WORD: invalid choice: 'verify'",
            "invalid choice: 'verify'",
        ),
        (1, "/usr/bin/python3: can't find '__main__' module in '/usr/local/lib/zorac-deploy/zorac-host'", "can't find"),
        (126, "", "exit code 126, and no message"),
    ],
)
def test_an_older_truncated_or_foreign_program(code, error, says):
    with pytest.raises(HostProgramUnusable, match=says):
        asked(Host("", code, error, version=""))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """This machine as a host, with a program of these bytes."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(host_program, "PATH", str(tmp_path / "zorac-host"))

    def install(content):
        (tmp_path / "zorac-host").write_bytes(content)
        (tmp_path / "zorac-host").chmod(0o755)
        return Connection(Here("tower", "cpu", "localhost", local=True))

    return install


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
def test_a_truncated_program(installed, share):
    whole = zipapp.build()
    connection = installed(whole[: int(len(whole) * share)])
    with pytest.raises(HostProgramUnusable, match=r"gave an unexpected answer.*zorac-deploy up"):
        asked(connection)
    assert not convergence.look(connection, Inputs(DIGEST)).converged


@pytest.mark.parametrize("stream", [1, 2])
def test_an_endless_answer_is_cut_off_at_the_limit(installed, stream):
    with pytest.raises(HostProgramUnusable, match="the command printed more than 16 MiB"):
        asked(installed(f"#!/bin/sh\nexec cat /dev/zero >&{stream}\n".encode()))


def test_an_answer_of_100_mb_is_not_stored(installed):
    connection = installed(b"#!/bin/sh\nhead --bytes=100M /dev/zero\n")
    assert not convergence.look(connection, Inputs(DIGEST)).converged


def test_a_newer_program_is_told_apart():
    with pytest.raises(HostProgramUnusable, match=r"deployed by zorac-deploy 9\.0, which is newer.*Upgrade") as caught:
        asked(Host("{}", version='{"version": "9.0", "protocol": 9}'))
    assert caught.value.newer


def test_a_missing_generation():
    with pytest.raises(Refused, match="there is no generation 9"):
        asked(
            Host(
                '{"refusal": {"id": "generation-unknown", "message": "there is no generation 9."}}',
                4,
                "there is no generation 9.",
            )
        )


@pytest.mark.parametrize("answer", ["", "[]", '{"refusal": 1}', '{"refusal": {"id": "of-a-later-version"}}'])
def test_an_unknown_refusal_is_an_error(answer):
    with pytest.raises(HostProgramUnusable):
        asked(Host(answer, 4, "it cannot be done"))


def look(asked=None, **changes):
    return convergence.look(Host(json.dumps({**CONVERGED, **changes})), asked or Inputs(DIGEST))


def test_a_host_in_its_desired_state():
    assert look().converged


DIFFERENCE = {
    "owner": "engine",
    "kind": "user",
    "part": "vllm",
    "aspect": "shell",
    "expected": "nologin",
    "found": "bash",
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inputs": "2" * 64}, "the inputs changed since the last deployment"),
        ({"inputs": ""}, "the last run did not finish"),
        ({"unusable": "it was recorded on another machine"}, "another machine"),
        ({"pending": {"target": 2, "by": "x"}}, "generation 2 is being activated"),
        ({"differences": [DIFFERENCE]}, "user vllm: shell: bash, expected nologin"),
        ({"reply": {"failure": "/health answered 503", "seconds": 1}}, "the engine gave no reply: /health"),
        ({"asked": Inputs("", ("port uses lookup",))}, "port uses lookup: its value can change"),
    ],
)
def test_every_reason_to_run_the_roles(changes, reason):
    (found,) = look(**changes).reasons
    assert reason in found


def test_nothing_deployed_is_a_reason():
    host = Host("", 127, "sudo: /usr/local/lib/zorac-deploy/zorac-host: command not found")
    assert convergence.look(host, Inputs(DIGEST)).reasons == ("nothing is deployed yet",)


def test_an_older_program_is_a_reason_and_a_newer_one_an_error():
    assert not convergence.look(Host("", 2, "invalid choice"), Inputs(DIGEST)).converged
    with pytest.raises(HostProgramUnusable):
        convergence.look(Host("", 2, "invalid choice", '{"version": "9.0", "protocol": 9}'), Inputs(DIGEST))


def test_a_host_that_a_newer_version_deployed_is_not_downgraded_by_the_way():
    with pytest.raises(
        HostProgramUnusable, match=r"deployed by zorac-deploy 9\.0, which is newer.*up --full"
    ) as caught:
        look(tool="9.0", inputs="2" * 64)
    assert caught.value.newer
    with pytest.raises(HostProgramUnusable):
        look(tool="9.0")  # the digest never is the same, but nothing is left to chance
    newer = Host(json.dumps({**CONVERGED, "tool": "9.0", "inputs": "2" * 64}))
    assert not convergence.look(newer, Inputs(DIGEST), downgrade=True).converged


@pytest.mark.parametrize("tool", ["", "0.0.1", __version__, "not a version"])
def test_an_older_or_the_same_version_is_no_obstacle(tool):
    assert look(tool=tool).converged
    host_program.require_not_newer(Host("{}", version=json.dumps({"version": tool, "protocol": 2})))


def test_switch_asks_for_the_version_before_anything():
    with pytest.raises(HostProgramUnusable, match=r"deployed by zorac-deploy 9\.0"):
        host_program.require_not_newer(Host("{}", version='{"version": "9.0", "protocol": 2}'))
