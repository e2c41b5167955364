"""The kernels of vLLM that are much slower than others which run on the same card.

The planner reads this too, on the controller, where there is no package zorac_host: it imports nothing of that.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Slow:
    """A kernel that vLLM itself takes only where no better one runs.

    Attributes:
        compute: The compute capability from which on a better one runs, in every vLLM that has both.
        better: The better ones, the usual one first. Where one of them computes too, a layer's shape made the choice.
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
# From the order and the get_min_capability of vLLM's kernels. Marlin's was 8.0 up to 0.13 and is 7.5 since 0.16.
SLOW = {
    # 23 tokens/s where awq_marlin makes 123: vllm-project/vllm#21376. No longer to be had since 0.24.
    "awq": Slow((8, 0), ("awq_marlin",), _FLAG),
    # A half to a quarter of Marlin's throughput: vllm-project/vllm#2497. Exllama is the same under its new name.
    "gptq": Slow((8, 0), ("gptq_marlin",), _FLAG),
    "ExllamaLinearKernel": Slow((8, 0), _INT4, _CHOICE),
    # Triton, behind Marlin in the order of "the best kernel in terms of performance".
    "ConchLinearKernel": Slow((8, 0), _INT4, _CHOICE),
    "TritonW4A16LinearKernel": Slow((7, 5), _INT4, _CHOICE),
    # Weights become bf16 anew for each token: "slow and unoptimized" in vLLM's own words.
    "EmulationNvFp4LinearKernel": Slow((7, 5), ("MarlinNvFp4LinearKernel",), _CHOICE),
    "EmulationMxfp4LinearKernel": Slow((7, 5), ("MarlinMxFp4LinearKernel",), _CHOICE),
    "EmulationMxfp8LinearKernel": Slow((7, 5), ("MarlinMxfp8LinearKernel",), _CHOICE),
}
