"""The kernels of vLLM that are much slower than others on the same GPU.

The planner on the controller reads this file without the package zorac_host: it imports nothing from it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Slow:
    """A kernel that vLLM uses only if no better one is available.

    Attributes:
        compute: The minimum compute capability of a better one, in every vLLM with both.
        better: The better ones, the usual one first. If one of them runs too, a layer's shape decided.
        cure: What to type.
    """

    compute: tuple[int, int]
    better: tuple[str, ...]
    cure: str


_FLAG = "Remove quantization from vllm_service_extra_flags: vLLM then chooses the faster kernel"
_CHOICE = (
    "Remove linear_backend from vllm_service_extra_flags, and VLLM_DISABLED_KERNELS and VLLM_BATCH_INVARIANT from "
    "vllm_environment. If none is set, the faster kernel does not support this checkpoint: use another one"
)
_INT4 = ("MarlinLinearKernel", "MacheteLinearKernel", "AllSparkLinearKernel", "CutlassW4A8LinearKernel")
# From the order and get_min_capability of vLLM's kernels. Marlin's was 8.0 up to 0.13 and is 7.5 since 0.16.
SLOW = {
    # 23 tokens/s where awq_marlin reaches 123: vllm-project/vllm#21376. Removed in 0.24.
    "awq": Slow((8, 0), ("awq_marlin",), _FLAG),
    # A half to a quarter of Marlin's throughput: vllm-project/vllm#2497. Exllama is the same under its new name.
    "gptq": Slow((8, 0), ("gptq_marlin",), _FLAG),
    "ExllamaLinearKernel": Slow((8, 0), _INT4, _CHOICE),
    # Triton, after Marlin in the order of "the best kernel in terms of performance".
    "ConchLinearKernel": Slow((8, 0), _INT4, _CHOICE),
    "TritonW4A16LinearKernel": Slow((7, 5), _INT4, _CHOICE),
    # Converts weights to bf16 for each token: "slow and unoptimized" in vLLM's own words.
    "EmulationNvFp4LinearKernel": Slow((7, 5), ("MarlinNvFp4LinearKernel",), _CHOICE),
    "EmulationMxfp4LinearKernel": Slow((7, 5), ("MarlinMxFp4LinearKernel",), _CHOICE),
    "EmulationMxfp8LinearKernel": Slow((7, 5), ("MarlinMxfp8LinearKernel",), _CHOICE),
}
