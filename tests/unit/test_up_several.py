"""`zorac-deploy up HOST HOST …`: hosts are compared in parallel, and deployed one after another."""

import contextlib
import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.unit.test_deployment import STATUS
from zorac_deploy import connection, convergence, deployment, inventory, runner
from zorac_deploy.cli import cli, deploying
from zorac_deploy.convergence import Look
from zorac_deploy.errors import DeploymentFailed, HostUnreachable, Interrupted, Refused
from zorac_deploy.host_program import Verified

SAME = Look(Verified(inputs="1" * 64, reply={"failure": "", "seconds": 0.5}, status=STATUS))
OTHER = Look(None, ("nothing is deployed yet",))


@pytest.fixture
def up(tmp_path, monkeypatch):
    """Run `up`, with each host's answer to the comparison, and the result of its roles: None, or an error."""
    source = tmp_path / "inventory.yml"
    source.write_text(inventory.as_data({"cpu": {"hosts": {name: {} for name in ("a", "b", "c")}}}))
    reads, log = [], []
    read = inventory.read

    @contextlib.contextmanager
    def opened(target, password):
        yield connection.Connection(target, password)

    @contextlib.contextmanager
    def lock(self, _):
        log.append(f"lock {self.target.name}")
        yield
        log.append(f"unlock {self.target.name}")

    monkeypatch.setattr(inventory, "read", lambda sources: reads.append(sources) or read(sources))
    monkeypatch.setattr(connection, "opened", opened)
    monkeypatch.setattr(connection.Connection, "lock", lock)
    monkeypatch.setattr(connection.Connection, "check", lambda _: None)

    def ran(*words, looks, roles=None, names=("a", "b", "c")):
        asked = threading.Barrier(len(set(names)))

        def look(connected, *_, **__):
            asked.wait(30)  # all of them, in parallel
            answer = looks[connected.target.name]
            if isinstance(answer, BaseException):
                raise answer
            return answer

        def converge(opened, _progress, facts, _full, _deep):
            facts["model_weights_family"] = {"notes": ["served without tool calls"]}
            log.append(f"roles {opened.name}")
            fault = (roles or {}).get(opened.name)
            if fault:
                raise fault
            result = runner.Result(("engine: Ensure …",), 20.0, Path("run.log"))
            return deploying.Deployed(result, deployment.from_status(opened.name, SAME.verified.status), None)

        monkeypatch.setattr(convergence, "look", look)
        monkeypatch.setattr(deploying, "converge", converge)
        done = CliRunner().invoke(cli, ["up", *names, "--inventory", str(source), *words])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert len(reads) == 1
        return done, log

    return ran


def test_hosts_in_their_desired_state_are_not_changed(up):
    done, log = up(looks=dict.fromkeys("abc", SAME))
    assert (done.exit_code, log) == (0, [])
    lines = done.output.splitlines()
    assert sum("nothing changed" in line for line in lines) == 6  # one while it runs, and one at the end
    assert sum("generation 2" in line for line in lines) == 3


def test_hosts_that_differ_are_deployed_one_after_another(up):
    done, log = up(looks={"a": OTHER, "b": SAME, "c": OTHER})
    assert log == ["lock a", "roles a", "unlock a", "lock c", "roles c", "unlock c"]
    assert done.exit_code == 0
    assert "a: nothing is deployed yet" in done.output
    assert "1 change, 20.0 s" in done.output
    assert done.output.count("note: served without tool calls") == 1


def test_a_failed_host_does_not_stop_the_others_and_the_first_error_is_the_exit_code(up):
    looks = {"a": OTHER, "b": HostUnreachable("b does not answer"), "c": OTHER}
    done, log = up(looks=looks, roles={"a": Refused("the port is in use", "port-taken")})
    assert [line for line in log if line.startswith("roles")] == ["roles a", "roles c"]
    assert done.exit_code == 29
    output = " ".join(done.output.split())
    assert "a failed, exit code 29" in output
    assert "b failed, exit code 10" in output
    assert "error [port-taken] on a: the port is in use error on b: b does not answer" in output


def test_json_has_one_object_per_host(up):
    looks = {"a": SAME, "b": OTHER, "c": HostUnreachable("c does not answer")}
    done, _ = up("--json", looks=looks, roles={"b": DeploymentFailed("apt failed")})
    told = json.loads(done.stdout)["hosts"]
    assert done.exit_code == 40
    assert [each["host"] for each in told] == ["a", "b", "c"]
    assert told[0]["changed"] == []
    assert "error" not in told[0]
    assert told[1]["error"] == {"id": None, "message": "apt failed", "exit_code": 40}
    assert told[2]["error"]["exit_code"] == 10


def test_full_runs_the_roles_of_every_host_without_comparing(up):
    done, log = up("--full", looks={})
    assert [line for line in log if line.startswith("roles")] == ["roles a", "roles b", "roles c"]
    assert done.exit_code == 0


@pytest.mark.parametrize("stop", [Interrupted("Interrupted. b continues."), KeyboardInterrupt()])
def test_ctrl_c_names_the_unchanged_hosts(up, stop):
    done, log = up(looks=dict.fromkeys("abc", OTHER), roles={"b": stop})
    assert "roles c" not in log
    assert done.exit_code == 130
    assert "Interrupted." in done.output
    assert "Hosts not deployed: c." in done.output


def test_ctrl_c_during_the_comparison_changes_none(up):
    done, log = up(looks={"a": KeyboardInterrupt(), "b": SAME, "c": OTHER})
    assert (done.exit_code, log) == (130, [])
    assert "Hosts not deployed: a, b, c." in done.output


def test_a_host_named_twice_is_one(up):
    done, _ = up("--json", looks=dict.fromkeys("ab", SAME), names=("a", "b", "a"))
    assert [each["host"] for each in json.loads(done.stdout)["hosts"]] == ["a", "b"]
