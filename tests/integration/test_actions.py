"""The roles' action plugins, in a real run of Ansible on this machine, and their arguments."""

import json
import sys

import pytest
import yaml
from click.testing import CliRunner

from tests.conftest import safetensors
from tests.hub_server import Hub
from tests.unit import models
from tests.unit.roles import plugin
from zorac_deploy import actions, content, runner
from zorac_deploy.cli import cli
from zorac_deploy.cli import model as model_command
from zorac_deploy.connection import Connection
from zorac_deploy.errors import Refused
from zorac_deploy.inventory import Target
from zorac_deploy.planner import Setup

CARD = {"name": "NVIDIA GeForce RTX 4090", "compute": "8.9", "total_mib": 24564, "reserved_mib": 480}
FLAGS = {"gpu_memory_utilization": 0.85, "kv_cache_dtype": "fp8", "max_num_seqs": 32}


class Unsafe(str):
    """A text that Ansible does not render as a template."""


yaml.SafeDumper.add_representer(Unsafe, lambda dumper, text: dumper.represent_scalar("!unsafe", str(text)))


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(models.MISTRAL_SMALL_AWQ))
    return made


def planned(folder, **changes):
    return actions.plan_memory(
        {"model": str(folder), "engine": "cuda-0.26.0", "cards": [CARD], "flags": FLAGS, **changes}
    )


def test_a_plan_has_its_setup(folder):
    found = planned(folder, flags={**FLAGS, "seed": 7, "swap_space": None}, environment={"A": 1})
    assert found["memory_plan_result"]["verdict"] == "fits"
    assert found["memory_plan_result"]["card"] == {"name": CARD["name"], "compute": "8.9", "count": 1}
    setup = Setup.load(json.loads(json.dumps(found["memory_plan_setup"])))
    assert setup.card.total_gib == pytest.approx(23.52, abs=0.01)
    assert setup.flags.max_model_len == 0
    assert setup.settings == {"seed": "7", "A": "1"}


def test_the_smallest_gpu_is_planned_for(folder):
    found = planned(folder, cards=[CARD, {"name": "small", "total_mib": 20480, "reserved_mib": None}, {"name": "none"}])
    setup = Setup.load(found["memory_plan_setup"])
    assert (setup.card.name, setup.card.count, setup.card.total_gib) == ("small", 3, (20480 - 480) / 1024)


@pytest.mark.parametrize("cards", [[], [{"name": "no driver"}]])
def test_no_memory_is_known_before_a_driver_works(folder, cards):
    assert planned(folder, cards=cards)["skipped"]


def test_an_unknown_model_is_served_with_the_users_context(folder):
    (folder / "config.json").write_text('{"model_type": "llama"}')
    assert planned(folder)["refusal"]["id"] == "model-unknown"
    found = planned(folder, max_model_len=4096)
    assert "failed" not in found
    assert "memory_plan_result" not in found


@pytest.mark.parametrize(
    ("changes", "refusal", "says"),
    [
        ({"max_model_len": 0}, "settings-invalid", "max_model_len is 0: Input should be greater than 0."),
        ({"flags": {"max_num_seqs": "many"}}, "settings-invalid", "max_num_seqs is 'many': Input should be a valid"),
        ({"flags": {"kv_cache_dtype": "int4"}}, "settings-invalid", "kv_cache_dtype is int4"),
        ({"cards": [{**CARD, "total_mib": 8192}]}, "model-does-not-fit", "model does not fit on NVIDIA GeForce RTX"),
        ({"model": "/no/such"}, "model-missing", "model directory not found: /no/such"),
    ],
)
def test_a_refusal_is_data(folder, changes, refusal, says):
    found = planned(folder, **changes)
    assert found["failed"]
    assert found["refusal"]["id"] == refusal
    assert says in found["refusal"]["message"]
    assert found["msg"] == f"[{refusal}] {found['refusal']['message']}"


def test_a_model_that_does_not_fit_is_refused_with_its_sizes(folder):
    facts = planned(folder, cards=[{**CARD, "total_mib": 8192}])["ansible_facts"]
    assert facts["memory_plan_result"]["verdict"] == "refused"
    assert "memory_plan_setup" in facts


@pytest.mark.parametrize(("flag", "value"), [("cpu_offload_gb", 4.0), ("enable_lora", True), ("max_loras", 4)])
def test_a_flag_with_unknown_memory_never_fits(folder, flag, value):
    assert planned(folder)["memory_plan_result"]["verdict"] == "fits"
    plan = planned(folder, flags={**FLAGS, flag: value})["memory_plan_result"]
    assert plan["verdict"] == "borderline"
    assert f"how much memory {flag} takes" in plan["reason"]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (
            {"gpu_memory_utilization": 1.5},
            "vllm_gpu_memory_utilization is 1.5: Input should be less than or equal to 1.",
        ),
        ({"port": "many"}, "vllm_port is 'many': Input should be a valid integer"),
        ({"enable_auto_tool_choice": True, "tool_call_parser": None}, "no parser is known for this model's tool calls"),
        ({"model": None}, "vllm_service_flags has no model"),
    ],
)
def test_invalid_vllm_flags_are_refused(flags, says):
    usual = {"model": "/m", "served_model_name": "m", "port": "8000", "max_num_seqs": None, "swap_space": 8}
    assert actions.check_vllm_flags({"flags": usual}) == {}
    result = actions.check_vllm_flags({"flags": usual | flags})
    assert result["refusal"]["id"] == "settings-invalid"
    assert says in result["msg"]


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Run the tasks of a role on this machine, as the CLI runs playbooks."""

    def ran(role, tasks="main", **variables):
        task = {"ansible.builtin.import_role": {"name": role, "tasks_from": tasks}}
        play = {"hosts": "all", "gather_facts": False, "vars": variables, "tasks": [{"name": "Try", **task}]}
        (tmp_path / "try.yml").write_text(yaml.safe_dump([{"name": "Try", **play}]))
        (tmp_path / "hosts.yml").write_text("all: {hosts: {here: {ansible_connection: local}}}")
        monkeypatch.setattr(content, "playbook", lambda _: tmp_path / "try.yml")
        here = Connection(Target("here", "cpu", "here", local=True))
        steps = []
        runner.run("try", [tmp_path / "hosts.yml"], here, tmp_path / "log", on_step=steps.append)
        return {name: value for step in steps for name, value in step.facts.items()}

    return ran


def test_a_missing_model_has_its_exit_code_with_any_callback(play, monkeypatch):
    for setting in ("FORCE_COLOR=1", "CLICOLOR_FORCE=1", "PYTHONWARNINGS=always", "PYTHONDEVMODE=1"):
        monkeypatch.setenv(*setting.split("="))
    with pytest.raises(Refused, match=r"^model not found on this machine: /no/such") as refused:
        play("model_weights", "preflight", model_weights_source="/no/such")
    assert refused.value.refusal == "model-missing"


def test_the_roles_facts_reach_the_cli(play, folder):
    variables = {"memory_plan_model": str(folder), "memory_plan_engine": "cuda-0.26.0", "memory_plan_flags": FLAGS}
    facts = play("memory_plan", memory_plan_cards=[CARD], **variables)
    assert facts["memory_plan_result"]["max_model_len"] == 32768
    assert Setup.load(facts["memory_plan_setup"]).card.name == CARD["name"]


def test_a_template_in_a_name_is_not_rendered(play, tmp_path, folder):
    named = folder.rename(tmp_path / "{{ 6 * 7 }}")
    small = [{**CARD, "total_mib": 8192}]
    with pytest.raises(Refused, match=r"^\{\{ 6 \* 7 \}\} does not fit"):
        play("memory_plan", memory_plan_model=Unsafe(named), memory_plan_engine="0.26.0", memory_plan_cards=small)


def test_without_the_package_the_first_task_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "zorac_deploy.actions", None)
    action = plugin("action", "require_package")
    result = action.ActionModule(*[None] * 6).run()
    assert result["failed"]
    assert f"{sys.executable}, cannot import zorac_deploy" in result["msg"]


@pytest.mark.usefixtures("new_user")
def test_a_refresh_uses_the_hosts_hub(monkeypatch):
    files = {"config.json": b'{"model_type": "llama"}', "tokenizer.json": b"{}", "model.safetensors": safetensors()}
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with Hub("org/name", files) as hub:
        asked = {"source": "hf://org/name", "hub": hub.endpoint}
        first = actions.resolve_model(asked)
        hub.commit({**files, "tokenizer.json": b'{"new": 1}'})
        assert actions.resolve_model(asked)["source"] == first["source"]
        newest = actions.resolve_model({**asked, "refresh": True})
        assert newest["source"] == f"hf://org/name@{hub.head}" != first["source"]
        assert actions.resolve_model(asked)["source"] == newest["source"]


@pytest.mark.parametrize("name", ["two\nlines", "org/name", "$HOME", "../up", "-rf", "a\x1b[2J"])
def test_an_invalid_directory_name_is_refused_before_the_model_is_read(name):
    answer = actions.resolve_model({"source": "/no/such/model", "name": name})
    assert answer["refusal"]["id"] == "settings-invalid"
    assert "Set another name" in answer["msg"]


@pytest.mark.parametrize("refresh", [False, True])
def test_pull_leaves_the_refresh_to_the_role(monkeypatch, refresh):
    seen = []

    def session(_, variables):
        seen.append(variables)
        raise Refused("that is enough", "model-missing")

    monkeypatch.setattr(model_command, "session", session)
    words = ["model", "pull", "hf://org/name", "--quiet", *(["--refresh"] if refresh else [])]
    assert CliRunner().invoke(cli, words).exit_code == 25
    assert seen[0]["model_weights_refreshed"] is refresh
