"""planner/llama_cpp.py: the memory that llama.cpp will take, and whether it fits."""

import pytest

from tests.unit import gguf_files
from zorac_deploy.errors import Refused
from zorac_deploy.planner import Card, Flags, llama_cpp
from zorac_deploy.planner.engine import GIB
from zorac_deploy.planner.gguf import Gguf

PROCESSOR = Card(23.0, count=0)
RTX_4090 = Card(23.52, name="RTX 4090")


def model(name="llama", weights=14 * GIB, **changes):
    return Gguf(gguf_files.llama(name, **changes), {"blk.0.ffn_up.weight": weights})


def test_the_plan_matches_a_logged_start():
    """SmolLM2-135M-Instruct Q4_1 on a CPU: 92.10 MiB of weights; two contexts, two types of cache."""
    sizes = {
        "block_count": 30,
        "context_length": 8192,
        "embedding_length": 576,
        "feed_forward_length": 1536,
        "attention__head_count": 9,
        "attention__head_count_kv": 3,
        "attention__key_length": 64,
        "attention__value_length": 64,
    }
    logged = [
        (Flags(max_model_len=4096), 90.00, 17.51),
        (Flags(max_model_len=8192), 180.00, 21.51),
        (Flags(max_model_len=8192, kv_cache_dtype="fp8"), 95.62, 20.42),
    ]
    for flags, cache, compute in logged:
        found = llama_cpp.plan(model(weights=96_570_000, **sizes), PROCESSOR, flags)
        assert found.kv_gib * 1024 == pytest.approx(cache, abs=0.01)
        assert found.activation_gib * 1024 == pytest.approx(compute, rel=0.06)
        assert (found.verdict, found.kv_tokens) == ("fits", flags.max_model_len)


def test_the_token_embedding_stays_on_the_host():
    tensors = {"token_embd.weight": GIB, "blk.0.ffn_up.weight": GIB, "output.weight": GIB}
    two_tables = Gguf(gguf_files.llama(), tensors)
    assert llama_cpp.plan(two_tables, RTX_4090, Flags()).weights_gib == 2
    assert llama_cpp.plan(two_tables, PROCESSOR, Flags()).weights_gib == 3
    one_table = Gguf(gguf_files.llama(), {"token_embd.weight": GIB, "blk.0.ffn_up.weight": GIB})
    assert llama_cpp.plan(one_table, RTX_4090, Flags()).weights_gib == 2


def test_auto_uses_the_longest_context_that_certainly_fits():
    within = llama_cpp.plan(model(), RTX_4090, Flags(max_model_len=0))
    assert (within.max_model_len, within.verdict) == (32768, "fits")
    tight = llama_cpp.plan(model(weights=19 * GIB), RTX_4090, Flags(max_model_len=0))
    assert 0 < tight.max_model_len < 32768
    assert tight.verdict == "fits"
    more = llama_cpp.plan(model(weights=19 * GIB), RTX_4090, Flags(max_model_len=32768))
    assert more.verdict == "refused"
    assert str(tight.max_model_len) in more.reason


def test_between_fits_and_refused_it_is_borderline():
    surely = llama_cpp.plan(model(weights=19 * GIB), RTX_4090, Flags(max_model_len=0)).max_model_len
    assert llama_cpp.plan(model(weights=19 * GIB), RTX_4090, Flags(max_model_len=surely + 512)).verdict == "borderline"


def test_more_than_the_models_limit_is_refused():
    assert llama_cpp.plan(model(), RTX_4090, Flags(max_model_len=65536)).verdict == "refused"


def test_layers_with_a_window_take_less():
    everything = llama_cpp.plan(model(), RTX_4090, Flags(max_model_len=32768, max_num_seqs=1)).kv_gib
    window = {"attention__sliding_window": 1024, "block_count": 48}
    windowed = model("gemma3", **window)
    found = llama_cpp.plan(windowed, RTX_4090, Flags(max_model_len=32768, max_num_seqs=1)).kv_gib
    # 8 of 48 layers have 32,768 tokens, 40 a window and a batch; the other model has 40 layers.
    assert found == pytest.approx(everything / 40 * (8 + 40 * 1536 / 32768))


def test_layers_without_attention_never_fit():
    assert llama_cpp.plan(model(ssm__state_size=128), RTX_4090, Flags()).verdict == "borderline"


def test_a_model_without_its_sizes_cannot_be_planned():
    with pytest.raises(Refused, match="has no block_count") as refused:
        llama_cpp.plan(model(block_count=0), RTX_4090, Flags())
    assert refused.value.refusal == "model-unknown"
