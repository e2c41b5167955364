"""`zorac-deploy model find`, and its use in `up`: the hub's real client with a fake hub."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from tests.conftest import safetensors
from tests.hub_server import Hub
from tests.unit import models
from zorac_deploy.cli import cli, model_find
from zorac_deploy.errors import Refused
from zorac_deploy.planner import Card, Engine, Flags, Setup

BASE = "mistralai/Mistral-Small-24B"
VARIANT = "someone/Mistral-Small-24B-AWQ"
FLAGS = Flags(gpu_memory_utilization=0.8, max_model_len=0, kv_cache_dtype="fp8")
SETUP = Setup(Card(23.52, name="RTX 4090"), Engine.parse("0.26.0"), FLAGS)
CARD = (
    "--gpu-name=RTX 4090",
    "--gpu-total-gib=23.52",
    "--gpu-memory-utilization=0.8",
    "--max-model-len=auto",
    "--kv-cache-dtype=fp8",
)


pytestmark = pytest.mark.usefixtures("new_user")


@pytest.fixture
def hub(monkeypatch):
    files = {"config.json": json.dumps(models.MISTRAL_SMALL_AWQ).encode(), "tokenizer.json": b"{}"}
    with Hub(VARIANT, {**files, "model.safetensors": safetensors()}) as made:
        quantized = {"tags": ["awq", f"base_model:quantized:{BASE}"], "downloads": 70, "siblings": []}
        made.listed = [
            {"id": BASE, "tags": [], "pipeline_tag": "text-generation", "safetensors": {"total": 1, "parameters": {}}},
            {"id": VARIANT, "sha": made.head, **quantized},
            {"id": "someone/empty-GPTQ", "sha": "0" * 40, **quantized, "tags": ["gptq", *quantized["tags"][1:]]},
        ]
        monkeypatch.setenv("HF_ENDPOINT", made.endpoint)
        yield made


def find(*words):
    done = CliRunner().invoke(cli, ["model", "find", f"hf://{BASE}", *CARD, *words])
    return done.exit_code, done.output


def test_the_variants_are_planned_for_the_gpu(hub):
    code, said = find("--json")
    awq, gptq = json.loads(said)["variants"]
    assert (code, awq["format"], awq["fits"], awq["downloads"]) == (0, "awq", True, 70)
    assert awq["source"] == f"hf://{VARIANT}@{hub.head}"
    assert (gptq["format"], gptq["fits"]) == ("gptq", False)
    assert "no weights" in gptq["trouble"]


def test_the_first_that_fits_is_shown_as_a_command(hub):
    code, said = find()
    assert code == 0
    assert f"zorac-deploy up --model hf://{VARIANT}@{hub.head}" in said.replace("\n", "")


@pytest.mark.parametrize("base", ["/some/folder", "hf://nobody/nothing"])
@pytest.mark.usefixtures("hub")
def test_a_local_model_has_no_variants(base):
    done = CliRunner().invoke(cli, ["model", "find", base, *CARD])
    assert (done.exit_code, "[model-missing]" in done.output) == (25, True)


def refusal(name="model-does-not-fit"):
    return Refused("it does not fit.", name)


def facts(source=f"hf://{BASE}"):
    return {"__model_weights_resolved": {"source": source}, "memory_plan_setup": SETUP.summary()}


def test_with_yes_the_first_that_fits_is_used(hub):
    assert model_find.offered(refusal(), facts(), accepted=True, ask=False) == f"hf://{VARIANT}@{hub.head}"


@pytest.mark.usefixtures("hub")
def test_without_yes_the_command_is_shown():
    with pytest.raises(Refused, match=f"it does not fit. .*model find hf://{BASE}.*--variant"):
        model_find.offered(refusal(), facts(), accepted=False, ask=False)


@pytest.mark.parametrize(
    ("refused", "known"),
    [
        (refusal("port-taken"), facts()),
        (refusal(), facts("/a/folder")),
        (refusal(), {}),
        (refusal(), {**facts(), "memory_plan_setup": replace(SETUP, card=Card(2)).summary()}),
    ],
)
@pytest.mark.usefixtures("hub")
def test_without_a_variant_the_refusal_stands(refused, known):
    with pytest.raises(Refused) as raised:
        model_find.offered(refused, known, accepted=True, ask=False)
    assert raised.value is refused


def test_one_that_may_fit_is_offered_if_none_certainly_fits(hub):
    tight = {
        **facts(),
        "memory_plan_setup": replace(SETUP, flags=replace(FLAGS, gpu_memory_utilization=0.92)).summary(),
    }
    assert model_find.offered(refusal(), tight, accepted=True, ask=False) == f"hf://{VARIANT}@{hub.head}"
    assert "None fits for certain. First that may fit: zorac-deploy up" in find("--gpu-memory-utilization=0.92")[1]
