"""zorac_deploy/models/find.py: the variants of a model, their order, and their plans."""

import pytest
from huggingface_hub import ModelInfo

from zorac_deploy.errors import Refused
from zorac_deploy.models.find import ORDER, variants
from zorac_deploy.planner import Card, Engine, Flags, plan

ADA, AMPERE = (8, 9), (8, 6)


def repository(name, downloads=10, method="", tags=(), files=("model.safetensors",)):
    config = {"quantization_config": {"quant_method": method}} if method else {}
    siblings = [{"rfilename": file} for file in files]
    return ModelInfo(id=name, sha="0" * 40, downloads=downloads, config=config, tags=list(tags), siblings=siblings)


def planned(source):
    """The plan for a full GPU, without a model."""
    return plan(Refused(source, "model-unknown"), Card(24, 0.5), Engine((0, 26)), Flags(gpu_memory_utilization=0.9))


def seen(*repositories, smaller=(), compute=ADA, judge=planned):
    return list(variants(repositories, smaller, compute, judge))


def test_the_guides_order_precedes_downloads():
    found = seen(
        repository("a/M-GGUF", 900, tags=["gguf"], files=["m-Q4_K_M.gguf"]),
        repository("a/M-FP8", 800, "fp8"),
        repository("a/M-GPTQ-Int4", 700, "gptq"),
        repository("a/M-AWQ", 600, "awq"),
        smaller=[repository("b/M-small", 9000)],
    )
    assert [each.format for each in found] == list(ORDER)


def test_of_one_format_the_few_most_downloaded_are_shown():
    found = seen(*(repository(f"a/M-AWQ-{count}", count, "awq") for count in range(1, 8)))
    assert [each.downloads for each in found] == [7, 6, 5]


@pytest.mark.parametrize(
    ("made", "link"),
    [
        (repository("a/M-AWQ", method="compressed-tensors"), "awq"),
        (repository("a/M.w4a16", method="compressed-tensors"), "awq"),
        (repository("a/M-GPTQ", method="compressed-tensors"), "gptq"),
        (repository("a/M-FP8-dynamic", method="compressed-tensors"), "fp8"),
        (repository("a/M", tags=["4-bit", "awq"]), "awq"),
    ],
)
def test_a_format_is_recognised_by_config_tags_or_name(made, link):
    assert [each.format for each in seen(made)] == [link]


@pytest.mark.parametrize(
    "made", [repository("a/M-AWQ-mlx", tags=["mlx"]), repository("a/M-bnb", method="bitsandbytes"), repository("a/M")]
)
def test_formats_outside_of_the_guide_are_omitted(made):
    assert seen(made) == []


def test_fp8_is_for_gpus_that_compute_it():
    (old,), (new,) = (seen(repository("a/M-FP8", method="fp8"), compute=each) for each in (AMPERE, ADA))
    assert old.plan is None
    assert "8.6" in old.trouble
    assert new.plan is not None


def test_of_a_gguf_repository_one_file_is_named():
    files = ("M-Q2_K.gguf", "M-Q8_0.gguf", "M-Q4_K_M.gguf")
    (found,) = seen(repository("a/M-GGUF", tags=["gguf"], files=files))
    assert found.source == f"hf://a/M-GGUF@{'0' * 40}/M-Q4_K_M.gguf"
    (strange,) = seen(repository("a/M-GGUF", tags=["gguf"], files=("M-IQ1_S.gguf",)))
    assert "Q4_K_M" in strange.trouble


def test_an_unusable_variant_has_a_reason_and_hides_no_other():
    def judge(source):
        if "gated" in source:
            raise Refused("accept its terms first", "model-gated")
        return planned(source)

    gated, other = seen(repository("gated/M-AWQ", 20, "awq"), repository("a/M-AWQ", 10, "awq"), judge=judge)
    assert (gated.trouble, gated.fits) == ("accept its terms first", False)
    assert other.plan is not None
    assert not other.fits  # nothing fits on a full GPU
