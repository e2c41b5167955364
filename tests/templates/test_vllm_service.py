"""The files of the vllm_service role, rendered by Ansible without a host."""

import yaml
from ansible.template import trust_as_template

from tests.templates.render import render, render_file

_TEMPLATE = "{{ lookup('engine_settings') | engine_flags('vllm') }}"
_FLAGS = {
    "model": "/models/m-0123456789ab",
    "served_model_name": "m",
    "gpu_memory_utilization": 0.92,
    "max_model_len": 32768,
    "enforce_eager": False,
    "tool_call_parser": None,
}


def test_the_settings_are_flags_with_dashes_and_null_is_omitted():
    settings = yaml.safe_load(render_file("vllm_service", "vllm.yaml.j2", vllm_service_flags=_FLAGS))
    assert settings["max-model-len"] == 32768
    assert settings["enforce-eager"] is False
    assert "tool-call-parser" not in settings
    assert "api-key" not in settings


def test_a_setting_is_the_inventorys_value_or_its_default():
    flags = render("vllm_service", _TEMPLATE, vllm_port=trust_as_template("{{ 8000 + 1 }}"), vllm_max_num_seqs=4)
    assert (flags["port"], flags["max_num_seqs"]) == (8001, 4)
    assert (flags["host"], flags["cpu_offload_gb"]) == ("127.0.0.1", None)
