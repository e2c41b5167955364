"""zorac_deploy/engine_settings.py: a row is all that a new setting needs."""

import dataclasses
import subprocess
import sys

import pytest

from zorac_deploy import engine_settings
from zorac_deploy.cli.fit import fit
from zorac_deploy.engine_settings import PLANNED, SETTINGS
from zorac_deploy.planner import Flags

# In a separate process, where the table gets a further row before it is read.
_ONE_MORE = """
import runpy, sys
from zorac_deploy import engine_settings
from zorac_deploy.engine_settings import Setting

row = Setting("enable_lora", bool | None, None, "unknown", "Serve adapters.", "enable_lora")
engine_settings.SETTINGS += (row,)

from zorac_deploy import profiles
from zorac_deploy.errors import Refused
from zorac_deploy.planner import settings

profiles.check("tower", {"vllm_enable_lora": True})
asked = {"vllm_enable_lora": "x"}
for check, wrong in ((profiles.check, ("tower", asked)), (settings.unknown, ({"enable_lora": "x"},))):
    try:
        check(*wrong)
    except Refused as refused:
        assert "vllm_enable_lora" in str(refused)
    else:
        raise AssertionError("it was not refused")
assert engine_settings.flags({"enable_lora": True}, "vllm") == {"enable_lora": True}
assert engine_settings.planned({"enable_lora": True}, "vllm") == {"enable_lora": True}
assert engine_settings.planned({"enable_lora": True}, "llama_cpp") == {}
assert settings.unknown({"enable_lora": "true"}) == ["enable_lora"]
reference = runpy.run_path("scripts/reference")
assert "| `vllm_enable_lora` | `boolean` | `null` | Serve adapters. | `--enable-lora` |" in reference["settings"]()
"""


def test_a_row_is_all_that_a_setting_needs():
    done = subprocess.run([sys.executable, "-c", _ONE_MORE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_planner_has_every_input_of_the_table():
    known = {field.name for field in dataclasses.fields(Flags)} - {"kv_cache_memory_gib"}
    assert known | {"dtype"} == set(PLANNED)


def test_fit_has_an_option_for_every_input_of_the_table():
    assert set(PLANNED) <= {parameter.name for parameter in fit.params}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_default_is_valid(setting):
    assert setting.check(setting.default) == setting.default


def test_flags_are_named_as_each_server_names_them():
    values = {"kv_cache_dtype": "fp8_e5m2", "max_model_len": 4096, "tool_call_parser": None, "least_max_model_len": 1}
    assert engine_settings.flags(values, "vllm") == {
        "max_model_len": 4096,
        "kv_cache_dtype": "fp8_e5m2",
        "tool_call_parser": None,
    }
    assert engine_settings.flags(values, "llama_cpp") == {
        "ctx_size": 4096,
        "cache_type_k": "q8_0",
        "cache_type_v": "q8_0",
    }
