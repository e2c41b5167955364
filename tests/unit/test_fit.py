"""`zorac-deploy fit` on the command line."""

import json
import os
import subprocess
import sys

import pytest
import yaml
from click.testing import CliRunner

from tests.conftest import safetensors
from tests.unit import models
from zorac_deploy import content
from zorac_deploy.cli import cli
from zorac_deploy.planner.engine import DEFAULT_VERSION

CARD = ("--gpu-name", "RTX 4090", "--gpu-total-gib", "23.52")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(models.MISTRAL_SMALL_AWQ))
    return tmp_path


def run(*words):
    return CliRunner().invoke(cli, ["fit", *map(str, words)])


def test_fit_imports_no_development_package(folder):
    words = [sys.executable, "-m", "zorac_deploy", "fit", folder, "--gpu-total-gib", "48", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["verdict"] == "fits"


def test_json_has_the_documented_fields(folder):
    found = json.loads(run(folder, *CARD, "--kv-cache-dtype", "fp8", "--json").stdout)
    sizes = ("weights_gib", "activation_gib", "graphs_gib", "overhead_gib", "kv_gib")
    assert all(found[name] > 0 for name in sizes)
    assert found["kv_bytes_per_token"] == 81920
    assert found["kv_tokens"] > found["largest_max_model_len"] == 32768
    assert found["max_concurrency"] > 1
    assert found["verdict"] == "borderline"  # the share is too large for the default number of sequences
    assert "gpu_memory_utilization 0.85 is safer" in found["reason"]
    assert found["assumed"] == {
        "gpu_memory_utilization": 0.92,
        "max_model_len": 32768,
        "max_num_seqs": 256,
        "max_num_batched_tokens": 2048,
        "gpu_free_gib": 23.02,
    }


def test_quantization_at_load_is_planned(tmp_path):
    config = {**models.MISTRAL_SMALL, "num_hidden_layers": 20}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(safetensors(1000))
    words = ("--gpu-memory-utilization", 0.8, "--max-num-seqs", 32)
    found = json.loads(run(tmp_path, *CARD, *words, "--setting", "quantization=bitsandbytes", "--json").stdout)
    assert found["weights_gib"] == pytest.approx(8.38, rel=0.02)  # logged by vLLM 0.26 on an H100
    assert found["verdict"] == "fits"
    assert json.loads(run(tmp_path, *CARD, "--json").stdout)["verdict"] == "refused"


def test_the_picture_has_the_parts_and_the_summary(folder):
    done = run(folder, *CARD, "--kv-cache-dtype", "fp8")
    for words in (
        "weights",
        "activation",
        "KV cache",
        "rest",
        "fits: ",
        "context that fits: 32,768",
        "engine defaults",
    ):
        assert words in done.stdout


def test_a_verdict_is_not_a_failure(folder):
    done = run(folder, "--gpu-total-gib", 12, "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["verdict"] == "refused"


def test_the_default_version_is_the_profiles():
    group = yaml.safe_load((content.root() / "inventory" / "group_vars" / "nvidia_cards.yml").read_text())
    assert group["vllm_engine_lock"].endswith(DEFAULT_VERSION)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ((), 2, "Missing option '--gpu-total-gib'"),
        (("--gpu-total-gib", "-1"), 2, "not in the range"),
        (("--gpu-total-gib", "nan"), 39, "the GPU's memory in GiB is nan"),
        ((*CARD, "--gpu-free-gib", "30"), 39, "the free memory in GiB is 30"),
        ((*CARD, "--gpu-memory-utilization", "0"), 2, "not in the range"),
        ((*CARD, "--gpu-memory-utilization", "1.2"), 2, "not in the range"),
        ((*CARD, "--max-model-len", "many"), 2, "not a valid integer"),
        ((*CARD, "--max-model-len", "-5"), 2, "not in the range"),
        ((*CARD, "--kv-cache-dtype", "int4"), 39, "kv_cache_dtype is int4"),
        ((*CARD, "--vllm-version", "latest"), 39, "as in 0.26.0"),
        ((*CARD, "--dtype", "int3"), 39, "dtype is int3"),
    ],
)
def test_invalid_arguments(folder, words, code, says):
    done = run(folder, *words)
    assert done.exit_code == code
    assert says in done.output


def pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def index(folder, *names):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict(enumerate(names))}))


@pytest.mark.parametrize(
    ("prepare", "code", "says"),
    [
        (lambda folder: (folder / "config.json").unlink(), 26, "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), 27, "cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), 27, "cannot be read as JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), 27, "has no settings"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "llama"}'), 37, "has no hidden_size"),
        (lambda folder: index(folder, "model-1-of-2.safetensors"), 26, "lacks model-1-of-2.safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(safetensors()[:-1]), 27, "was cut off"),
        (lambda folder: (folder / "x.safetensors.incomplete").touch(), 26, "x.safetensors.incomplete"),
        (lambda folder: (folder / "config.json").write_text('{"hidden_size": ' + "9" * 400 + "}"), 27, "hidden_size"),
        (
            lambda folder: (folder / "config.json").write_text('{"hidden_size": ' + "9" * 5000 + "}"),
            27,
            "cannot be read as JSON",
        ),
        (lambda folder: os.truncate(folder / "config.json", 2**30), 27, "cannot be read as JSON"),
        (lambda folder: pipe(folder / "config.json"), 80, "not a regular file"),
        (lambda folder: pipe(folder / "model.safetensors"), 80, "not a regular file"),
        (lambda folder: pipe(folder / "model.gguf"), 27, "not a regular file"),
    ],
)
def test_invalid_model_directories(folder, prepare, code, says):
    prepare(folder)
    done = run(folder, *CARD)
    assert done.exit_code == code, done.output
    assert says in done.output.replace("\n", " ")


def test_a_missing_model_directory(tmp_path):
    assert run(tmp_path / "none", *CARD).exit_code == 25
    assert run("x" * 5000, *CARD).exit_code == 25


def test_existing_files_override_the_formula(folder):
    """14 GiB by the header, but none on the disk: the file is sparse."""
    size = 14 * 2**30
    header = {"w": {"dtype": "I32", "shape": [size // 4], "data_offsets": [0, size]}}
    with (folder / "model.safetensors").open("wb") as file:
        file.write(safetensors(0, header))
        file.truncate(file.tell() + size)
    found = json.loads(run(folder, *CARD, "--json").stdout)
    assert found["weights_gib"] == pytest.approx(14, rel=0.03)
    assert found["notes"] == []


def test_files_that_differ_from_the_config_are_noted(folder):
    (folder / "model.safetensors").write_bytes(safetensors())
    found = json.loads(run(folder, *CARD, "--json").stdout)
    assert "may be of different models" in found["notes"][0]
    assert found["weights_gib"] > 13


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("enable_lora=true", "enable_lora"),
        ("max-loras=4", "max_loras"),
        ("cpu_offload_gb=4", "cpu_offload_gb"),
        ("quantization=fp8", "quantization"),
        ("no_such_flag=1", "no_such_flag"),
        ("VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE=9", "VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE"),
        ("PYTORCH_CUDA_ALLOC_CONF=x", "PYTORCH_CUDA_ALLOC_CONF"),
    ],
)
def test_an_unknown_setting_never_fits(folder, setting, named):
    words = (*CARD, "--gpu-memory-utilization", 0.85, "--max-num-seqs", 32, "--kv-cache-dtype", "fp8", "--json")
    assert json.loads(run(folder, *words).stdout)["verdict"] == "fits"
    found = json.loads(run(folder, *words, "--setting", setting).stdout)
    assert found["verdict"] == "borderline"
    assert f"does not know how much memory {named} takes" in found["reason"]


@pytest.mark.parametrize(
    "setting",
    ["enable_lora=false", "cpu_offload_gb=0", "seed=7", "chat-template=x", "HOME=/srv", "HTTPS_PROXY=http://a"],
)
def test_a_setting_that_takes_no_memory_changes_no_verdict(folder, setting):
    words = (*CARD, "--gpu-memory-utilization", 0.85, "--max-num-seqs", 32, "--kv-cache-dtype", "fp8", "--json")
    assert json.loads(run(folder, *words, "--setting", setting).stdout)["verdict"] == "fits"


def test_a_setting_with_its_own_option_is_refused(folder):
    done = run(folder, *CARD, "--setting", "max-num-seqs=1000")
    assert (done.exit_code, "Use --max-num-seqs" in done.output.replace("\n", " ")) == (39, True)


def test_other_settings_are_checked_by_type(folder):
    done = run(folder, *CARD, "--setting", "cpu_offload_gb=lots")
    assert done.exit_code == 39
    assert "cpu_offload_gb is 'lots'" in done.output


def test_a_refusal_notes_unknown_settings(folder):
    found = json.loads(run(folder, "--gpu-total-gib", 12, "--setting", "enable_lora=true", "--json").stdout)
    assert found["verdict"] == "refused"
    assert "enable_lora" in found["notes"][-1]
