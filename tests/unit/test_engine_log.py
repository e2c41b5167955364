"""zorac_host/engine_log.py: the logs of all versions of vLLM are parsed, and compared with the plan."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import engine_logs
from zorac_host import engine_log

CARD = {"name": "NVIDIA GeForce RTX 4090", "compute": "8.9", "total_gib": 23.5}
READ = engine_logs.READ["0.26.0-h100"]
PLAN = {"predicted": {"weights_gib": 13.31, "kv_tokens": 80000}, "card": CARD}

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
# Close to the expected lines: the right names with any values.
_PLANS = st.fixed_dictionaries(
    {},
    optional={
        "predicted": _JSON | st.fixed_dictionaries({}, optional={"weights_gib": _JSON}),
        "card": _JSON | st.fixed_dictionaries({}, optional={"compute": _JSON | st.just("8.9"), "name": _JSON}),
    },
)


@pytest.mark.parametrize("name", engine_logs.READ)
def test_a_journal_is_read(name):
    assert engine_log.read(engine_logs.logged(name).splitlines()) == engine_logs.READ[name]


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("Available KV cache memory: -2.16 GiB", "kv_gib", -2.16),
        ("reserved 3.00GiB memory for KV Cache as specified by kv_cache_memory_bytes config", "kv_gib", 3.0),
        ("Auto set (3.5/8.34) GiB for KV cache on node 0, with 4.0 GiB requested memory", "kv_gib", 3.5),
        ("Using Triton MLA backend on V1 engine.", "attention_backend", "Triton MLA"),
        ("Using FlexAttention backend for head_size=80 on V1 engine.", "attention_backend", "FlexAttention"),
        ("Using FlashInfer backend with HND KV cache layout on V1 engine", "attention_backend", "FlashInfer"),
        ("Using Torch SDPA backend.", "attention_backend", "Torch SDPA"),
        ("\x1b[36m(Worker)\x1b[0m Using AttentionBackendEnum.FLASHINFER backend.", "attention_backend", "FLASHINFER"),
        ("Using EmulationNvFp4LinearKernel for NVFP4 GEMM", "kernels", ["EmulationNvFp4LinearKernel"]),
    ],
)
def test_a_line_is_read(line, key, value):
    assert engine_log.read([line]) == {key: value}


@pytest.mark.parametrize(
    "line",
    [
        "Using Transformers backend.",
        "Using Transformers modeling backend.",
        "Using HND KV cache layout for FLASHINFER backend.",
        "Using '%s' MxFp8 MoE backend.",
        "Using Marlin backend",
        "Engine 000: GPU KV cache usage: 0.7%",
        "Using model weights format ['*.safetensors']",
    ],
)
def test_a_similar_line_is_ignored(line):
    assert engine_log.read([line]) == {}


def test_only_the_last_start_counts():
    again = engine_logs.FORCED + engine_logs.logged("0.10.1.1-two-workers") + engine_logs.H100
    assert engine_log.read(again.splitlines()) == READ


@given(st.lists(st.text() | st.sampled_from(engine_logs.H100.split())).map(" ".join))
def test_any_journal_is_parsed(text):
    engine_log.judge(engine_log.read(text.splitlines()), PLAN)


@given(st.text(), st.sampled_from(engine_logs.H100.splitlines()), st.integers(0, 400))
def test_a_truncated_or_longer_line_is_parsed(more, line, place):
    engine_log.read([line[:place] + more, line[:place] + more + line[place:]])


@given(_JSON | _PLANS, st.sampled_from([READ, {"kernels": ["awq"], "weights_gib": 43.9}, {}]))
def test_any_plan_is_compared(plan, logged):
    engine_log.judge(logged, plan)


def test_an_engine_as_planned_is_not_refused():
    assert engine_log.judge(READ, PLAN) is None


@pytest.mark.parametrize(
    ("planned", "found", "refused"),
    [
        (13.31, 13.58, False),
        (13.31, 14.6, False),
        (13.31, 14.7, True),
        (13.31, 43.9, True),
        (0.25, 0.7, False),
        (1, 1.6, True),
    ],
)
def test_more_memory_than_planned_is_refused(planned, found, refused):
    assert bool(engine_log.judge({"weights_gib": found}, {"predicted": {"weights_gib": planned}})) == refused


def test_a_checkpoint_loaded_unquantized_is_named():
    refusal = engine_log.judge({"weights_gib": 43.9, "quantization": "none"}, PLAN)
    assert refusal.cause == "engine-loaded-more"
    assert "the engine loaded 43.90 GiB of weights, but 13.31 GiB were planned" in refusal.message
    assert "quantization (vLLM logged quantization=none)" in refusal.message


@pytest.mark.parametrize(
    ("kernels", "compute", "cure"),
    [
        (["awq"], "8.9", "Remove quantization from vllm_service_extra_flags"),
        (["gptq"], "8.0", "Remove quantization from vllm_service_extra_flags"),
        (["ExllamaLinearKernel"], "12.0", "use another one"),
        (["gptq_marlin", "ExllamaLinearKernel"], "8.6", "use another one"),
        (["ConchLinearKernel"], "8.9", "linear_backend"),
        (["TritonW4A16LinearKernel"], "7.5", "linear_backend"),
        (["EmulationNvFp4LinearKernel"], "8.9", "linear_backend"),
    ],
)
def test_a_slow_kernel_is_refused_if_a_faster_one_is_available(kernels, compute, cure):
    refusal = engine_log.judge({"kernels": kernels}, {"card": {**CARD, "compute": compute}})
    assert refusal.cause == "engine-slow-kernel"
    assert f"the kernel {kernels[-1]}, but " in refusal.message
    assert f"(NVIDIA GeForce RTX 4090, compute capability {compute})" in refusal.message
    assert cure in refusal.message


@pytest.mark.parametrize(
    ("kernels", "compute"),
    [
        (["awq"], "7.5"),  # up to 0.13 Marlin did not support it
        (["ExllamaLinearKernel"], "7.5"),
        (["awq"], None),
        (["awq"], "unknown"),
        (["awq_marlin"], "8.9"),
        (["MacheteLinearKernel"], "9.0"),
        (["MarlinLinearKernel", "ExllamaLinearKernel"], "8.9"),  # a layer with a shape that Marlin does not support
        ([], "8.9"),
    ],
)
def test_a_slow_kernel_without_a_faster_one_is_not_refused(kernels, compute):
    assert engine_log.judge({"kernels": kernels}, {"card": {"compute": compute}}) is None


def test_without_a_gpu_or_a_prediction_nothing_is_refused():
    assert engine_log.judge({"weights_gib": 43.9, "kernels": ["awq"]}, {"max_num_seqs": 4}) is None
