"""The differences between versions of vLLM, and its defaults for each GPU.

From the sources of 0.10.1.1 to 0.33.0; otherwise measured, and marked as such.
"""

import re
from dataclasses import dataclass

from zorac_deploy.errors import Refused

GIB = 2**30

# The engine of the profiles with a GPU.
DEFAULT_VERSION = "0.26.0"

# Compute capability by product name (NVIDIA, "CUDA GPU Compute Capability"); the first match is used.
_CAPABILITIES = (
    (r"B300|GB300", "10.3"),
    (r"B200|GB200", "10.0"),
    (r"GB10|DGX SPARK", "12.1"),
    (r"H100|H200|H800|H20\b|GH200", "9.0"),
    (r"RTX ?50\d\d|\b50[5-9]0|BLACKWELL", "12.0"),
    (r"RTX ?40\d\d|\b40[5-9]0|L40|\bL4\b|\bADA\b", "8.9"),
    (r"A100|A30\b|A800", "8.0"),
    (r"RTX ?30\d\d|\b30[5-9]0|A10\b|A10G|A16|A2\b|A40|A[2-6]000", "8.6"),
    (r"T4|RTX ?20\d\d|\b20[6-8]0|TITAN RTX|RTX ?[4-8]000", "7.5"),
    (r"V100|TITAN V", "7.0"),
)


def capability(name: str) -> str | None:
    """The compute capability of the GPU called `name`, such as ``8.9``; None if the name is unknown."""
    return next((value for pattern, value in _CAPABILITIES if re.search(pattern, name.upper())), None)


@dataclass(frozen=True)
class Card:
    """The GPUs that the engine runs on, all of one kind.

    Attributes:
        total_gib: The memory of one, as CUDA sees it.
        free_gib: The free memory before the engine starts; None for a GPU without other processes.
        name: Its product name; may be empty.
        count: The number of GPUs.
    """

    total_gib: float
    free_gib: float | None = None
    name: str = ""
    count: int = 1

    @property
    def compute(self) -> tuple[int, int] | None:
        """The compute capability; None if unknown."""
        text = capability(self.name)
        return (int(text.split(".")[0]), int(text.split(".")[1])) if text else None


@dataclass(frozen=True)
class Engine:
    """A version of vLLM.

    Attributes:
        version: Major and minor number.
        name: Its name, such as ``cuda-0.26.0`` or ``0.26.0``.
    """

    version: tuple[int, int]
    name: str = ""

    @property
    def processor(self) -> bool:
        """Whether it computes on the CPU."""
        return self.name.startswith("cpu")

    @classmethod
    def parse(cls, text: str) -> "Engine":
        """The engine called `text`, such as ``0.26.0``.

        Raises:
            Refused: The planner does not know it.
        """
        match = re.search(r"(\d+)\.(\d+)", text)
        if not match or (version := (int(match[1]), int(match[2]))) < (0, 9):
            raise Refused(f"the version of vLLM is {text!r}. Use 0.9 or newer, as in 0.26.0.", "settings-invalid")
        return cls(version, text)

    @property
    def gpu_memory_utilization(self) -> float:
        """The default share of the GPU's memory (vllm/config/cache.py)."""
        return 0.92 if self.version >= (0, 21) else 0.9

    def batch_defaults(self, card: Card) -> tuple[int, int]:
        """The defaults of ``max_num_batched_tokens`` and ``max_num_seqs`` for the API server.

        From vllm/engine/arg_utils.py, get_batch_defaults: large GPUs get more, except the A100.
        """
        if self.version >= (0, 33) and card.total_gib >= 160:
            return 16384, 1024
        if card.total_gib >= 70 and "A100" not in card.name.upper() and card.compute != (12, 1):
            return 8192, 1024
        return 2048, 256

    def cache_bytes(self, small_cache: bool, dtype_bytes: int) -> int:
        """Bytes of a number in the cache if the flags leave it open; since 0.16 a checkpoint may require 8 bits."""
        return 1 if small_cache and self.version >= (0, 16) else dtype_bytes

    @property
    def tokens_by_concurrency(self) -> bool:
        """Whether "GPU KV cache size" is the concurrency times the length (since 0.21), not blocks times their size."""
        return self.version >= (0, 21)

    def second_runner(self, experts: bool, hybrid: bool) -> bool:
        """Whether the second model runner is the default for such a model (vllm/config/vllm.py)."""
        if self.version >= (0, 29):
            return True
        return self.version >= (0, 25) and not experts and not hybrid

    def graphs_in_budget(self, experts: bool, hybrid: bool) -> bool:
        """Whether the memory of CUDA graphs is estimated and taken from the KV cache.

        Since 0.21 (VLLM_MEMORY_PROFILER_ESTIMATE_CUDAGRAPHS); but the second runner's estimate was 0 until 0.29.
        """
        return self.version >= (0, 29) or (self.version >= (0, 21) and not self.second_runner(experts, hybrid))

    @property
    def counts_everything_consumed(self) -> bool:
        """Whether all memory taken from the GPU is counted, including the allocator's cached blocks (since 0.27)."""
        return self.version >= (0, 27)

    def sampler_bytes(self, experts: bool, hybrid: bool) -> tuple[float, float]:
        """Bytes that sampling takes per sequence and vocabulary entry beside the logits: at least, and at most.

        Logits in 32 bits (4), probabilities (4), random numbers (4) and a mask (1) make 13. Sorting for top-p, which
        0.17 dropped, adds sorted values (4), their indices (8) and the sort's own copies of both (11): 36. Until 0.10
        FlashInfer, if installed, did it without sorting. The second runner's profile draws no random numbers: 6.
        """
        if self.second_runner(experts, hybrid):
            return 6, 6
        if self.version >= (0, 17):
            return 13, 13
        return (13 if self.version <= (0, 10) else 36), 36
