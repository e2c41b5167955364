"""zorac_deploy/planner/formats.py: unsupported formats are refused, and so are settings that make the engine slower."""

import json

import pytest
from click.testing import CliRunner

from tests.unit import models
from zorac_deploy import content
from zorac_deploy.cli import cli
from zorac_deploy.errors import Refused
from zorac_deploy.planner import Card, Engine, formats

ADA, AMPERE, TURING = Card(23.5, name="RTX 4090"), Card(23.5, name="RTX 3090"), Card(15, name="T4")
HOPPER = Card(79, name="H100")
CUDA, CPU = Engine.parse("cuda-0.26.0"), Engine.parse("cpu-0.32.0")
AWQ = {"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}
GPTQ = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}
COMPRESSED = {"quantization_config": models.W4A16}


def named(method, **more):
    return {"quantization_config": {"quant_method": method, **more}}


def four_bit_floats(group):
    weights = {"num_bits": 4, "type": "float", "group_size": group}
    return named("compressed-tensors", config_groups={"group_0": {"targets": ["Linear"], "weights": weights}})


@pytest.mark.parametrize(
    "config", [{}, AWQ, GPTQ, COMPRESSED, named("fp8"), named("bitsandbytes"), four_bit_floats(16)]
)
@pytest.mark.parametrize("card", [ADA, AMPERE, TURING, Card(24)])
def test_the_guides_formats_are_served_on_every_gpu(config, card):
    formats.check(config, card, CUDA)


@pytest.mark.parametrize("config", [{}, AWQ, GPTQ, COMPRESSED, named("bitsandbytes")])
def test_the_guides_formats_are_served_in_the_sandbox(config):
    formats.check(config, Card(1), CPU)


@pytest.mark.parametrize(
    ("config", "card", "engine", "says"),
    [
        (named("exl2"), ADA, CUDA, "exl2, which the engine cuda-0.26.0 does not know"),
        (named("mxfp4"), TURING, CUDA, "compute capability 8.0, but T4 has 7.5"),
        (four_bit_floats(32), TURING, CUDA, "compute capability 8.0, but"),
        (named("modelopt", quant_algo="FP8"), AMPERE, CUDA, "compute capability 8.9, but RTX 3090 has 8.6"),
        (named("fp_quant"), HOPPER, CUDA, "compute capability 10.0, but"),
        (named("mxfp4"), Card(1), CPU, "not known to serve on a CPU"),
    ],
)
def test_an_unsupported_format_is_refused(config, card, engine, says):
    with pytest.raises(Refused, match=says) as refused:
        formats.check(config, card, engine)
    assert refused.value.refusal == "format-unsupported"


@pytest.mark.parametrize("engine", [CUDA, CPU])
def test_the_engines_of_the_profiles_hold_what_bitsandbytes_needs(engine):
    lock = content.role_file("engine", f"locks/{engine.name}.txt").read_text()
    assert "\nbitsandbytes==" in lock
    assert ("\nvllm-bnb-plugin==" in lock) == engine.processor


def test_an_engine_without_the_package_of_a_format_is_refused(tmp_path, monkeypatch):
    lock = tmp_path / "cuda-0.33.0.txt"
    monkeypatch.setattr(content, "role_file", lambda *_: lock)
    lock.write_text("bitsandbytes==0.50.2\nvllm==0.33.0\n")
    with pytest.raises(Refused, match="comes without vllm-bnb-plugin"):
        formats.check(named("bitsandbytes"), ADA, Engine.parse("cuda-0.33.0"))
    lock.write_text("bitsandbytes==0.50.2\nvllm==0.33.0\nvllm-bnb-plugin==0.0.3\n")
    formats.check(named("bitsandbytes"), ADA, Engine.parse("cuda-0.33.0"))


@pytest.mark.parametrize(
    ("config", "settings", "card", "engine", "says"),
    [
        (AWQ, {"quantization": "awq"}, ADA, "0.21.0", "quantization: awq .* but the much faster awq_marlin"),
        (GPTQ, {"quantization": "gptq"}, AMPERE, "0.21.0", "quantization: gptq .* gptq_marlin"),
        (COMPRESSED, {"linear_backend": "conch"}, ADA, "0.26.0", "linear_backend: conch .* MarlinLinearKernel"),
        (GPTQ, {"linear_backend": "Exllama"}, ADA, "0.26.0", "ExllamaLinearKernel"),
        (AWQ, {"VLLM_DISABLED_KERNELS": "MarlinLinearKernel"}, ADA, "0.26.0", "VLLM_DISABLED_KERNELS"),
        (AWQ, {"VLLM_DISABLED_KERNELS": "MacheteLinearKernel,MarlinLinearKernel"}, HOPPER, "0.26.0", "H100"),
        (AWQ, {"VLLM_BATCH_INVARIANT": "1"}, ADA, "0.26.0", "VLLM_BATCH_INVARIANT"),
    ],
)
def test_a_setting_that_makes_it_slower_is_refused(config, settings, card, engine, says):
    with pytest.raises(Refused, match=says) as refused:
        formats.check_speed(config, settings, card, Engine.parse(engine))
    assert refused.value.refusal == "setting-slower"


@pytest.mark.parametrize(
    ("config", "settings", "card", "engine"),
    [
        (AWQ, {"quantization": "awq"}, ADA, "0.26.0"),  # it chooses Marlin in any case
        (AWQ, {"quantization": "awq"}, TURING, "0.21.0"),  # Marlin did not support it
        (AWQ, {"quantization": "awq_marlin"}, ADA, "0.21.0"),
        (AWQ, {"VLLM_DISABLED_KERNELS": "MacheteLinearKernel"}, HOPPER, "0.26.0"),  # Marlin remains
        (AWQ, {"VLLM_DISABLED_KERNELS": "MarlinLinearKernel"}, HOPPER, "0.26.0"),  # Machete remains
        (COMPRESSED, {"linear_backend": "marlin"}, ADA, "0.26.0"),
        ({}, {"linear_backend": "triton", "VLLM_DISABLED_KERNELS": "MarlinLinearKernel"}, ADA, "0.26.0"),
        (AWQ, {"linear_backend": "conch"}, Card(24, name="nobody knows"), "0.26.0"),
        (AWQ, {"linear_backend": "conch"}, Card(1), "cpu-0.32.0"),
    ],
)
def test_a_setting_that_is_not_slower_passes(config, settings, card, engine):
    formats.check_speed(config, settings, card, Engine.parse(engine))


def test_formats_and_settings_are_checked_before_the_plan(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(models.MISTRAL_SMALL_AWQ))
    card = ("--gpu-name", "RTX 4090", "--gpu-total-gib", "23.52")
    done = CliRunner().invoke(cli, ["fit", str(tmp_path), *card, "--setting", "linear_backend=conch"])
    assert (done.exit_code, "[setting-slower]" in done.stderr) == (85, True)
    (tmp_path / "config.json").write_text(json.dumps({**models.MISTRAL_SMALL, **named("exl2")}))
    done = CliRunner().invoke(cli, ["fit", str(tmp_path), *card])
    assert (done.exit_code, "[format-unsupported]" in done.stderr) == (81, True)
