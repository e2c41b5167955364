"""Which of an engine's other settings the planner knows.

A setting that is in no list here may change what takes memory. A plan with one is `borderline` and names it.
"""

import dataclasses
from collections.abc import Mapping

from zorac_deploy.errors import Refused
from zorac_deploy.planner.flags import Flags

# Flags of vLLM that take no memory of the GPU, or none beyond the spread of what was measured.
_VLLM = frozenset(
    {
        "allowed_headers",
        "allowed_local_media_path",
        "allowed_methods",
        "allowed_origins",
        "api_key",
        "attention_backend",
        "chat_template",
        "chat_template_content_format",
        "default_chat_template_kwargs",
        "disable_access_log_for_endpoints",
        "disable_fastapi_docs",
        "disable_log_requests",
        "disable_log_stats",
        "disable_uvicorn_access_log",
        "download_dir",
        "enable_auto_tool_choice",
        "enable_force_include_usage",
        "enable_log_outputs",
        "enable_log_requests",
        "enable_prefix_caching",
        "enable_prompt_tokens_details",
        "enable_request_id_headers",
        "enable_server_load_tracking",
        "generation_config",
        "host",
        "kv_cache_metrics",
        "linear_backend",
        "load_format",
        "max_log_len",
        "max_logprobs",
        "middleware",
        "no_enable_prefix_caching",
        "otlp_traces_endpoint",
        "override_generation_config",
        "port",
        "prefix_caching_hash_algo",
        "reasoning_parser",
        "response_role",
        "return_tokens_as_token_ids",
        "revision",
        "root_path",
        "scheduling_policy",
        "seed",
        "served_model_name",
        "shutdown_timeout",
        "ssl_ca_certs",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_keyfile",
        "structured_outputs_config",
        "swap_space",
        "tokenizer",
        "tokenizer_mode",
        "tokenizer_revision",
        "tool_call_parser",
        "tool_parser_plugin",
        "trust_remote_code",
        "trust_request_chat_template",
        "uvicorn_log_level",
    }
)
# Variables whose names begin as those do that matter, and that do not matter.
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
# Arguments of llama-server that take no memory of the GPU.
_LLAMA_CPP = frozenset(
    {
        "alias",
        "api_key",
        "cache_prompt",
        "cache_reuse",
        "chat_template",
        "chat_template_file",
        "host",
        "jinja",
        "log_verbosity",
        "metrics",
        "min_p",
        "mlock",
        "no_mmap",
        "no_slots",
        "numa",
        "offline",
        "port",
        "prio",
        "reasoning_budget",
        "reasoning_format",
        "repeat_penalty",
        "seed",
        "slots",
        "temp",
        "threads",
        "threads_batch",
        "threads_http",
        "timeout",
        "top_k",
        "top_p",
        "verbose",
    }
)
_OFF = ("", "none", "false", "0", "0.0")


def unknown(settings: Mapping[str, str], *, llama_cpp: bool = False) -> list[str]:
    """The names of the `settings` that may change what takes memory, and that the planner does not know.

    Raises:
        Refused: One is an option of its own, which would be passed over here.
    """
    own = {field.name for field in dataclasses.fields(Flags)} | {"dtype"}
    known = _LLAMA_CPP if llama_cpp else _VLLM
    found = []
    for name, value in settings.items():
        flag = name.removeprefix("--").replace("-", "_")
        if flag in own:
            option = f"--{flag.replace('_', '-')}"
            raise Refused(f"{name} is {value}, as another setting. Give it with {option}.", "settings-invalid")
        if value.lower() in _OFF:
            continue
        if flag.isupper():
            matters = flag.startswith(_ENVIRONMENT_PREFIXES) and flag not in _ENVIRONMENT
        else:
            matters = flag not in known
        if matters:
            found.append(flag)
    return sorted(found)
