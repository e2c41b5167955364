"""zorac_deploy/deployment.py: the host program's answers, as results and as errors."""

import json
import subprocess
from types import SimpleNamespace

import pytest

from zorac_deploy import deployment
from zorac_deploy.errors import DeploymentFailed, HostUnreachable, NotDeployed, Refused, ZoracDeployError

ABOUT = {
    "created": 1,
    "digest": "d",
    "profile": "headless",
    "engine": "cuda-0.26.0",
    "model": "m",
    "model_path": "/models/m",
    "max_model_len": 32768,
    "host": "0.0.0.0",  # noqa: S104 - told, not bound
    "port": "8000",
    "plan": {"max_num_seqs": 16},
}
LOGGED = {"weights_gib": 13.58, "kernels": ["MarlinLinearKernel"]}
PROVED = {
    "state": "proved",
    "at": 5,
    "by": "me",
    "reason": "",
    "order": 2,
    "seconds": {"silent": 9.5},
    "engine": LOGGED,
}
STATUS = {
    "current": 2,
    "pending": None,
    "watchdog": {},
    "generations": [{"number": 1, **ABOUT, "outcome": {}}, {"number": 2, **ABOUT, "outcome": PROVED}],
    "unit": {"state": "active", "since": 3, "restarts": 0, "enabled": True},
    "health": "",
}
FAILED = {"changed": True, "state": "failed", "reason": "it ended", "previous": 1, "back_failure": "", "lines": ["ERR"]}


class FakeConnection:
    """Returns a given answer, and records the requests."""

    target = SimpleNamespace(name="tower", local=False)

    def __init__(self, answer=None, stderr="", code=0, unreachable=False):
        self.done = subprocess.CompletedProcess([], code, json.dumps(answer), stderr)
        self.unreachable = unreachable

    def run(self, *words):
        if words[1:] == ("version",):
            return subprocess.CompletedProcess([], 0, '{"version": "0.1.0", "protocol": 2}', "")
        self.asked = words
        return self.done

    def check(self):
        if self.unreachable:
            raise HostUnreachable("tower does not answer")


def test_the_deployment_is_the_current_generation():
    found = deployment.read(FakeConnection(STATUS))
    assert (found.generation, found.profile, found.port, found.state) == (2, "headless", 8000, "active")
    assert (found.healthy, found.activating, found.watchdog) == (True, "", "")
    assert found.url == "http://0.0.0.0:8000"
    assert (found.plan, found.logged) == ({"max_num_seqs": 16}, LOGGED)


@pytest.mark.parametrize(
    ("health", "unit", "says"),
    [
        ("", {}, ""),
        ("refused", {"state": "activating"}, "tower is starting. Wait for it: zorac-deploy logs tower --follow"),
        ("refused", {"state": "activating", "restarts": 2}, "tower is starting again after it ended. Wait"),
        ("refused", {"state": "failed"}, "tower has failed. Type: zorac-deploy doctor tower"),
        ("refused", {"state": "inactive"}, "tower is stopped. Type: zorac-deploy doctor tower"),
        ("timed out", {}, "tower runs, but does not answer. Type: zorac-deploy doctor tower"),
        ("refused", {"state": "deactivating"}, "tower is deactivating. Type: zorac-deploy doctor tower"),
    ],
)
def test_an_engine_that_does_not_serve_is_explained(health, unit, says):
    answer = {**STATUS, "health": health, "unit": STATUS["unit"] | unit}
    explained = deployment.read(FakeConnection(answer)).not_serving
    assert says in explained
    assert bool(says) == bool(explained)


@pytest.mark.parametrize("listen", ["::1", "::", "2001:db8::7"])
def test_an_address_of_ipv6_has_brackets_in_a_url(listen):
    generations = [{**each, "host": listen} for each in STATUS["generations"]]
    found = deployment.read(FakeConnection({**STATUS, "generations": generations}))
    assert found.url == f"http://[{listen}]:8000"


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        ({"doubt": "no token"}, "last check failed: no token"),
        ({"gave_up": "no token", "helped": [1]}, "gave up: no token"),
        ({"helped": [1, 2]}, "restarted the engine 2 times"),
    ],
)
def test_the_watchdogs_message_is_reported(kept, says):
    assert deployment.read(FakeConnection({**STATUS, "watchdog": kept})).watchdog == says


def test_an_activation_in_progress_is_reported():
    pending = {"target": 3, "by": "you"}
    assert deployment.read(FakeConnection({**STATUS, "pending": pending})).activating == "generation 3, for you"
    with pytest.raises(NotDeployed, match=r"Generation 3 is being activated. Deploy it with: zorac-deploy up"):
        deployment.read(FakeConnection({**STATUS, "current": None, "pending": pending}))


def test_generations_have_a_result_or_none():
    one, two = deployment.generations(FakeConnection(STATUS))
    assert (one.state, one.at, one.order, one.current) == ("", None, 0, False)
    assert (two.state, two.at, two.order, two.current) == ("proved", 5, 2, True)
    assert two.seconds == {"silent": 9.5}
    assert (one.logged, two.logged, two.cause) == ({}, LOGGED, "")
    assert "digest" not in two.about


def test_a_difference_is_what_changed_with_the_plans_numbers_one_by_one():
    other = {**ABOUT, "profile": "display", "plan": {"max_num_seqs": 4, "kv": "fp8"}}
    told = {**STATUS, "generations": [STATUS["generations"][0], {"number": 2, **other, "outcome": {}}]}
    one, two = deployment.generations(FakeConnection(told))
    changed = {"profile": ("headless", "display"), "max_num_seqs": (16, 4), "kv": (None, "fp8")}
    assert two.difference(one) == changed
    assert one.difference(one) == {}
    assert one.difference(None)["model"] == (None, "m")


NOISE = """\
mux_client_request_session: session request failed: Session open refused by peer
ControlSocket /run/user/0/zorac-deploy/x/ssh already exists, disabling multiplexing
no such identity: /home/me/.ssh/id_dsa: No such file or directory
Warning: Permanently added '[127.0.0.1]:2222' (ED25519) to the list of known hosts.
sudo: unable to resolve host tower: Name or service not known"""


def test_an_activation_reports_its_times():
    connection = FakeConnection({"changed": True, "generation": 2, **PROVED})
    assert deployment.activate(connection, 2, "me") == deployment.Activation(2, True, {"silent": 9.5})
    assert connection.asked[1:] == ("activate", "2", "--by", "me")


def test_a_rollback_is_a_refusal():
    with pytest.raises(Refused, match=r"it ended. Rolled back to generation 1, which was verified.\n  ERR") as refused:
        deployment.activate(FakeConnection(FAILED), 2, "me")
    assert refused.value.refusal == "rolled-back"


@pytest.mark.parametrize("more", [{"back_failure": "so did 1."}, {"previous": None}])
def test_without_an_answer_the_deployment_failed(more):
    with pytest.raises(DeploymentFailed, match=r"generation 2 failed on tower: it ended. .*The endpoint is down."):
        deployment.activate(FakeConnection({**FAILED, **more}), 2, "me")


def test_an_unknown_generation_is_refused():
    told = {"refusal": {"id": "generation-unknown", "message": "there is no generation 9."}}
    warning = "Warning: Permanently added 'tower' to the list of known hosts."
    with pytest.raises(Refused, match=r"^there is no generation 9") as refused:
        deployment.activate(FakeConnection(told, stderr=warning, code=4), 9, "me")
    assert refused.value.refusal == "generation-unknown"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("sudo: /usr/local/lib/zorac-deploy/zorac-host: command not found", 1),
        (f"{NOISE}\nsudo: /usr/local/lib/zorac-deploy/zorac-host: command not found\n", 1),
        ("bash: line 1: /usr/local/lib/zorac-deploy/zorac-host: No such file or directory", 127),
    ],
)
def test_without_the_host_program_nothing_is_deployed(said, code):
    with pytest.raises(NotDeployed, match="nothing is deployed on tower"):
        deployment.read(FakeConnection(stderr=said, code=code))


def test_a_warning_of_ssh_is_ignored():
    said = "Warning: Identity file /no/key not accessible: No such file or directory."
    assert deployment.read(FakeConnection(STATUS, stderr=said)).generation == 2


def test_other_errors_are_the_connections_or_the_programs():
    with pytest.raises(HostUnreachable):
        deployment.read(FakeConnection(stderr="ssh: timed out", code=255, unreachable=True))
    with pytest.raises(ZoracDeployError, match="the host program of tower failed: generation 3 is being activated"):
        deployment.activate(FakeConnection(stderr="generation 3 is being activated, for you", code=1), 2, "me")


def test_collecting_passes_on_how_many_to_keep():
    connection = FakeConnection({"generations": [1], "paths": [], "bytes": 0})
    assert deployment.collect(connection, 2, True).generations == (1,)
    assert connection.asked[1:] == ("collect", "--keep", "2", "--check")
