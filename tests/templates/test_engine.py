import pytest
import yaml

from tests.templates.render import render
from zorac_deploy import content


@pytest.mark.parametrize(("server", "setting"), [("vllm", "vllm_engine_lock"), ("llama_cpp", "llama_cpp_engine_lock")])
def test_an_unknown_lock_is_refused_with_the_variable_that_a_person_sets(server, setting):
    wiring = yaml.safe_load((content.root() / "inventory/group_vars/gpu_servers.yml").read_text())
    named = render("engine", wiring["engine_lock_setting"], server_in_use=server)
    tasks = yaml.safe_load((content.root() / "roles/engine/tasks/preflight.yml").read_text())
    message = tasks[0]["refuse"]["message"].partition("{{ query")[0]
    said = render("engine", message, engine_lock="mine", engine_lock_setting=named)
    assert said.strip() == f"unknown engine mine. Set {setting} to one of:"
