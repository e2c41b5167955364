"""The files of the vllm_service role, rendered as Ansible renders them, without a host."""

import pytest
import yaml

from tests.templates.render import render_file

_FLAGS = {
    "model": "/models/m-0123456789ab",
    "served_model_name": "m",
    "host": "127.0.0.1",
    "port": 8000,
    "gpu_memory_utilization": 0.92,
    "max_model_len": 32768,
    "kv_cache_dtype": "fp8",
    "enforce_eager": False,
    "tool_call_parser": None,
}


@pytest.fixture
def render():
    def rendered(template, **changes):
        settings = {"vllm_service_engine_path": "/opt/engines/cuda-0.26.0", "vllm_service_flags": _FLAGS}
        return render_file("vllm_service", template, **settings | changes)

    return rendered


def test_the_settings_are_flags_with_dashes_and_leave_out_what_is_null(render):
    settings = yaml.safe_load(render("vllm.yaml.j2"))
    assert settings["max-model-len"] == 32768
    assert settings["enforce-eager"] is False
    assert "tool-call-parser" not in settings
    assert "api-key" not in settings


def test_the_unit_names_no_key_and_is_hardened(render):
    unit = render("etc/systemd/system/vllm.service.j2")
    assert "LoadCredential=api-key:/etc/zorac-deploy/api-key" in unit
    assert "VLLM_API_KEY" not in unit
    for line in ("ProtectSystem=strict", "NoNewPrivileges=yes", "KillMode=mixed", "Restart=always"):
        assert line in unit.splitlines()


def test_a_gpu_is_a_list_of_devices_in_the_same_unit(render):
    without = render("etc/systemd/system/vllm.service.j2").splitlines()
    with_gpu = render("etc/systemd/system/vllm.service.j2", vllm_service_devices=["/dev/nvidiactl"]).splitlines()
    assert set(without) - set(with_gpu) == {"PrivateDevices=yes"}
    assert set(with_gpu) - set(without) == {"DeviceAllow=/dev/nvidiactl rw"}


def test_the_environment_is_quoted(render):
    unit = render("etc/systemd/system/vllm.service.j2", vllm_service_environment={"A": "one two"})
    assert 'Environment="A=one two"' in unit.splitlines()


def test_stopping_leaves_running_requests_their_time(render):
    unit = render("etc/systemd/system/vllm.service.j2", vllm_service_flags={**_FLAGS, "shutdown_timeout": 20})
    assert "TimeoutStopSec=50" in unit.splitlines()


def test_the_unit_names_only_files_of_its_own_generation(render):
    unit = render("etc/systemd/system/vllm.service.j2")
    assert "ExecStart=/opt/engines/cuda-0.26.0/bin/python @GENERATION@/vllm-serve @GENERATION@/vllm.yaml" in unit
    assert "/current" not in unit
