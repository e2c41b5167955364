"""For any config.json and command line: a plan without a negative size, or a refusal with a reason."""

import json
import math

from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from tests.unit import models
from zorac_deploy import errors
from zorac_deploy.cli import cli
from zorac_deploy.errors import Refused
from zorac_deploy.planner import Card, Engine, Flags, from_config, plan
from zorac_deploy.planner.architectures import ALIASES, ARCHITECTURES

_REAL = [models.MISTRAL_SMALL_AWQ, models.GEMMA_3, models.DEEPSEEK_V2_LITE, models.GPT_OSS_20B, models.QWEN3_5_4B]
_KEYS = sorted(
    {
        *(key for config in _REAL for key in config),
        *(key for architecture in ARCHITECTURES.values() for key in architecture.defaults),
        *(name for names in ALIASES.values() for name in names),
        *("rope_scaling", "use_sliding_window", "mlp_only_layers", "decoder_sparse_step", "dtype", "hidden_act"),
    }
)
_LEAVES = (
    some.none()
    | some.booleans()
    | some.integers(-5, 300_000)
    | some.integers()
    | some.floats()
    | some.text(max_size=12)
    | some.sampled_from(["full_attention", "linear_attention", "awq", "fp8", "mxfp4", "yarn", "linear", "int4"])
)
_VALUES = some.recursive(
    _LEAVES,
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.sampled_from(_KEYS), inner, max_size=4),
)
_PACKINGS = some.dictionaries(
    some.sampled_from(["quant_method", "bits", "group_size", "config_groups", "ignore", "weight_block_size", "sym"]),
    _VALUES,
    max_size=5,
)
_CONFIGS = some.builds(
    lambda real, changed, dropped, packing: (
        {key: value for key, value in (real | changed).items() if key not in dropped}
        | ({"quantization_config": packing} if packing else {})
    ),
    some.sampled_from(_REAL),
    some.dictionaries(some.sampled_from(_KEYS), _VALUES, max_size=4),
    some.sets(some.sampled_from(_KEYS), max_size=3),
    some.none() | _PACKINGS,
)
_FLAGS = some.fixed_dictionaries(
    {},
    optional={
        "gpu_memory_utilization": some.floats(),
        "max_model_len": some.integers(0, 10**10),
        "least_max_model_len": some.integers(0, 10**6),
        "kv_cache_dtype": some.sampled_from(["auto", "fp8", "int4", ""]),
        "max_num_seqs": some.integers(-1, 10**7),
        "max_num_batched_tokens": some.integers(-1, 10**8),
        "tensor_parallel_size": some.integers(-1, 2000),
        "enforce_eager": some.booleans(),
        "kv_cache_memory_gib": some.none() | some.floats(),
    },
)
_CARDS = some.builds(
    Card,
    some.floats(0.5, 200) | some.floats(),
    some.none() | some.floats(),
    some.sampled_from(["", "RTX 4090", "H100", "A100", "B200"]),
    some.integers(-1, 16),
)
_VERSIONS = some.sampled_from(["0.9.1", "0.10.1.1", "0.19.0", "0.26.0", ">=0.27", "0.33.0"])


@settings(max_examples=1000)
@given(_CONFIGS, _CARDS, _VERSIONS, _FLAGS)
def test_a_plan_or_a_refusal(config, card, version, flags):
    try:
        found = plan(from_config(config), card, Engine.parse(version), Flags(**flags))
    except Refused as fault:
        refused = fault
    else:
        refused = None
    if refused:
        assert refused.refusal in ("model-unknown", "model-damaged", "settings-invalid")
        assert len(str(refused)) > 10
        return
    assert found.verdict in ("fits", "borderline", "refused")
    assert found.reason
    for name, size in found.summary().items():
        if isinstance(size, (int, float)):
            assert math.isfinite(size), name
            assert size >= 0, name
    if found.verdict == "fits":
        assert found.kv_low_gib <= found.kv_gib <= found.kv_high_gib
        assert found.max_concurrency >= 1


@settings(max_examples=200)
@given(
    some.sampled_from(_REAL),
    _VERSIONS,
    some.floats(8, 180),
    some.sampled_from(["RTX 4090", "H100", "A100"]),
    some.integers(1, 200_000),
)
def test_the_longest_context_fits_and_more_memory_never_fits_less(config, version, total, name, length):
    model, engine = from_config(config), Engine.parse(version)
    card, larger = Card(total, name=name), Card(total * 1.1, name=name)
    flags = {"max_num_batched_tokens": 2048, "max_num_seqs": 64, "gpu_memory_utilization": 0.85}
    length = min(length, model.max_model_len)
    small, large = (plan(model, each, engine, Flags(max_model_len=length, **flags)) for each in (card, larger))
    order = ["refused", "borderline", "fits"]
    assert order.index(large.verdict) >= order.index(small.verdict)
    assert large.largest_max_model_len >= small.largest_max_model_len
    if small.largest_max_model_len:
        sure = plan(model, card, engine, Flags(max_model_len=small.largest_max_model_len, **flags))
        assert sure.kv_low_gib * 2**30 >= 0
        assert "needs" not in sure.reason or sure.verdict == "fits"


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(some.text() | some.builds(json.dumps, _CONFIGS | _VALUES), some.lists(some.text(max_size=8), max_size=3))
def test_the_command_never_shows_a_traceback(tmp_path, text, more):
    (tmp_path / "config.json").write_text(text, encoding="utf-8")
    done = CliRunner().invoke(cli, ["fit", str(tmp_path), "--gpu-total-gib", "23.52", "--json", *more])
    assert done.exit_code in (0, 2, *(kind.exit_code for kind in errors.REFUSALS.values()))
    assert "Traceback" not in done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    if done.exit_code == 0 and not more:
        assert json.loads(done.stdout)["verdict"] in ("fits", "borderline", "refused")
