"""The files of the vllm_service role, rendered as Ansible renders them, without a host."""

import yaml

from tests.templates.render import render_file

_FLAGS = {
    "model": "/models/m-0123456789ab",
    "served_model_name": "m",
    "gpu_memory_utilization": 0.92,
    "max_model_len": 32768,
    "enforce_eager": False,
    "tool_call_parser": None,
}


def test_the_settings_are_flags_with_dashes_and_leave_out_what_is_null():
    settings = yaml.safe_load(render_file("vllm_service", "vllm.yaml.j2", vllm_service_flags=_FLAGS))
    assert settings["max-model-len"] == 32768
    assert settings["enforce-eager"] is False
    assert "tool-call-parser" not in settings
    assert "api-key" not in settings
