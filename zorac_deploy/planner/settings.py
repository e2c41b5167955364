"""Which of an engine's other settings the planner knows.

`engine_settings` lists the flags that take no memory, and this file the variables. Any other may change the memory: a
plan with one is `borderline` and names it.
"""

from collections.abc import Mapping

from zorac_deploy import engine_settings
from zorac_deploy.errors import Refused

# Variables that do not change the memory although their prefix suggests it.
_ENVIRONMENT = frozenset(
    {
        "CUDA_DEVICE_ORDER",
        "CUDA_HOME",
        "CUDA_VISIBLE_DEVICES",
        "TORCH_COMPILE_DISABLE",
        "TORCHINDUCTOR_CACHE_DIR",
        "VLLM_API_KEY",
        "VLLM_BATCH_INVARIANT",
        "VLLM_CACHE_ROOT",
        "VLLM_CONFIGURE_LOGGING",
        "VLLM_CPU_KVCACHE_SPACE",
        "VLLM_CPU_OMP_THREADS_BIND",
        "VLLM_DISABLED_KERNELS",
        "VLLM_DO_NOT_TRACK",
        "VLLM_LOGGING_LEVEL",
        "VLLM_LOG_STATS_INTERVAL",
        "VLLM_NO_USAGE_STATS",
        "VLLM_USE_FLASHINFER_SAMPLER",
        "VLLM_WORKER_MULTIPROC_METHOD",
    }
)
_ENVIRONMENT_PREFIXES = ("VLLM_", "PYTORCH_", "TORCH", "CUDA_", "NCCL_", "GGML_", "LLAMA_")
_OFF = ("", "none", "false", "0", "0.0")


def unknown(settings: Mapping[str, str], *, llama_cpp: bool = False) -> list[str]:
    """The names of the `settings` that may change what takes memory, and that the planner does not know.

    Raises:
        Refused: A setting has its own option, which this would bypass; or a value is invalid.
    """
    server: engine_settings.Server = "llama_cpp" if llama_cpp else "vllm"
    flags = {name.removeprefix("--").replace("-", "_"): value for name, value in settings.items()}
    for flag, value in flags.items():
        if flag in engine_settings.PLANNED:
            option = f"--{flag.replace('_', '-')}"
            raise Refused(
                f"--setting {flag}={value}: this setting has its own option. Use {option}.", "settings-invalid"
            )
    used = {flag: value for flag, value in flags.items() if value.lower() not in _OFF}
    if server == "vllm":
        engine_settings.check(used)
    return sorted(flag for flag in used if _changes_memory(flag, server))


def _changes_memory(flag: str, server: engine_settings.Server) -> bool:
    if flag.isupper():
        return flag.startswith(_ENVIRONMENT_PREFIXES) and flag not in _ENVIRONMENT
    return not engine_settings.takes_no_memory(flag, server)
