"""zorac_host/llama_log.py: llama.cpp's log of its memory, and whether a GPU computes."""

from pathlib import Path

import pytest

from zorac_host import engine_log

CPU = (Path(__file__).parent / "logs" / "llama-cpp-cpu.txt").read_text().splitlines()
# In the format of load_tensors and llama_kv_cache; no GPU was available to log them.
CARD = """
load_tensors: offloaded 41/41 layers to GPU
load_tensors:   CPU_Mapped model buffer size =   360.00 MiB
load_tensors:        CUDA0 model buffer size = 12800.00 MiB
load_tensors:        CUDA1 model buffer size =   512.00 MiB
llama_context: n_ctx_seq             = 32768
llama_context:  CUDA_Host  output buffer size =    16.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =  2720.00 MiB
llama_kv_cache: size = 2720.00 MiB ( 32768 cells,  40 layers, 32/1 seqs), K (q8_0): 1360.00 MiB, V (q8_0): 1360.00 MiB
sched_reserve:      CUDA0 compute buffer size =   266.00 MiB
sched_reserve:  CUDA_Host compute buffer size =    74.01 MiB
""".splitlines()
A_CARD = {"card": {"name": "RTX 4090", "compute": "8.9"}}


def test_a_logged_start_on_a_cpu():
    assert engine_log.read(CPU) == {
        "weights_gib": 0.09,
        "kv_gib": 0.088,
        "activation_gib": 0.017,
        "kv_tokens": 4096,
        "max_model_len": 4096,
        "kernels": ["CPU"],
    }


def test_gpu_memory_counts_and_host_memory_does_not():
    found = engine_log.read(CARD)
    assert (found["weights_gib"], found["kv_gib"]) == (13.0, 2.656)
    assert (found["kernels"], found["offloaded_layers"], found["kv_tokens"]) == (["CUDA"], [41, 41], 32768)
    assert engine_log.judge(found, A_CARD) is None


def test_the_last_start_counts():
    again = [*CARD, "Starting llama-cpp.service - llama.cpp...", *CPU]
    assert engine_log.read(again) == engine_log.read(CPU)


@pytest.mark.parametrize("line", ["", "load_tensors: offloaded 0/41 layers to GPU"])
def test_no_layer_on_an_existing_gpu_is_a_fault(line):
    refusal = engine_log.judge(engine_log.read([line, *CPU]), A_CARD)
    assert refusal.cause == "engine-slow-kernel"
    assert "no layer runs on RTX 4090" in refusal.message


def test_without_a_gpu_the_cpu_computes():
    assert engine_log.judge(engine_log.read(CPU), {"card": {"name": "the processor", "compute": None}}) is None
