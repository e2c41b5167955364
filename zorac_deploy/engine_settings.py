"""The table of the engine's settings: names, types, flags, and the effect of each on GPU memory.

A new setting is a new row. The inventory check, the engine's command line, the planner, `zorac-deploy fit` and
docs/reference/settings.md follow from the rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, TypeAdapter
from pydantic import ValidationError as Invalid

from zorac_deploy.errors import Refused

Server = Literal["vllm", "llama_cpp"]


def _cache_type(dtype: object) -> str:
    """llama.cpp's name for a KV cache type; it has one name for all 8-bit types."""
    return "q8_0" if str(dtype).startswith("fp8") else "f16"


@dataclass(frozen=True)
class Setting:
    """A setting of the engine. The inventory variable is its name after ``vllm_``.

    Attributes:
        name: The name, with underscores.
        type: The annotation of its values.
        default: The value without one in the inventory; None uses the engine's default.
        memory: ``input`` of the planner; ``none`` if it takes no GPU memory; ``unknown`` if it does, and the planner
            cannot predict how much.
        meaning: The description in the reference.
        vllm: vLLM's flag, with underscores; empty if it has none.
        llama_cpp: The llama.cpp flags that it sets; empty for none.
        llama_cpp_value: llama.cpp's name for a value.
    """

    name: str
    type: Any
    default: object
    memory: Literal["input", "none", "unknown"]
    meaning: str
    vllm: str = ""
    llama_cpp: tuple[str, ...] = ()
    llama_cpp_value: Callable[[Any], object] = lambda value: value

    @property
    def variable(self) -> str:
        """The inventory variable."""
        return f"vllm_{self.name}"

    def flags(self, server: Server, value: object) -> dict[str, object]:
        """The flags of `server` for a `value`."""
        if server == "vllm":
            return {self.vllm: value} if self.vllm else {}
        return dict.fromkeys(self.llama_cpp, self.llama_cpp_value(value))

    def check(self, value: object) -> Any:
        """Convert `value` to its type; texts with a number or a truth value are accepted.

        Raises:
            Refused: It is invalid.
        """
        try:
            return TypeAdapter(self.type).validate_python(value)
        except Invalid as fault:
            reason = fault.errors()[-1]["msg"]
            raise Refused(f"{self.variable} is {value!r}: {reason}.", "settings-invalid") from None


_Share = Annotated[float, Field(gt=0, le=1)]
_Port = Annotated[int, Field(ge=1, le=65535)]
_CacheType = Literal["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"]
_ComputeType = Literal["auto", "bfloat16", "float16", "half", "float32", "float"]

SETTINGS = (
    Setting(
        "host",
        str,
        "127.0.0.1",
        "none",
        "Address to listen on: 127.0.0.1 for the host alone, 0.0.0.0 for the network. Requests need the API key.",
        "host",
        ("host",),
    ),
    Setting("port", _Port, 8000, "none", "TCP port to listen on.", "port", ("port",)),
    Setting(
        "gpu_memory_utilization",
        _Share | None,
        None,
        "input",
        "The engine's share of the GPU's memory.",
        "gpu_memory_utilization",
    ),
    Setting(
        "max_model_len",
        Annotated[Literal["auto"] | PositiveInt, Field(union_mode="left_to_right")],
        "auto",
        "input",
        "Context length in tokens; auto is the longest that fits, up to the model's limit.",
        "max_model_len",
        ("ctx_size",),
    ),
    Setting("least_max_model_len", PositiveInt, 1, "input", "Shortest context that max_model_len: auto may choose."),
    Setting(
        "max_num_seqs",
        PositiveInt | None,
        None,
        "input",
        "Requests computed at once.",
        "max_num_seqs",
        ("parallel",),
    ),
    Setting(
        "max_num_batched_tokens",
        PositiveInt | None,
        None,
        "input",
        "Tokens computed at once.",
        "max_num_batched_tokens",
    ),
    Setting(
        "tensor_parallel_size",
        PositiveInt | None,
        None,
        "input",
        "GPUs that each layer is split across.",
        "tensor_parallel_size",
    ),
    Setting(
        "kv_cache_dtype",
        _CacheType,
        "auto",
        "input",
        "Type of the KV cache; fp8 takes half the memory of bfloat16.",
        "kv_cache_dtype",
        ("cache_type_k", "cache_type_v"),
        _cache_type,
    ),
    Setting("dtype", _ComputeType, "auto", "input", "Type of weights and activations.", "dtype"),
    Setting("enforce_eager", bool, False, "input", "Do not compile, and do not capture CUDA graphs.", "enforce_eager"),
    Setting(
        "cpu_offload_gb",
        NonNegativeFloat | None,
        None,
        "unknown",
        "GiB of weights to keep in the host's memory; slow.",
        "cpu_offload_gb",
    ),
    Setting(
        "tokenizer_mode",
        Literal["auto", "hf", "mistral"],
        "auto",
        "none",
        "Tokenizer; auto follows the [model's family](model-families.md).",
        "tokenizer_mode",
    ),
    Setting(
        "enable_auto_tool_choice",
        Literal["auto"] | bool,
        "auto",
        "none",
        "Whether the model may call tools; auto allows it if a parser is known.",
        "enable_auto_tool_choice",
    ),
    Setting(
        "tool_call_parser",
        str | None,
        "auto",
        "none",
        "Format of the model's tool calls; auto follows the model's family, null disables tool calls.",
        "tool_call_parser",
    ),
    Setting("attention_backend", str | None, None, "none", "Attention kernels.", "attention_backend"),
    Setting(
        "shutdown_timeout",
        NonNegativeInt,
        30,
        "none",
        "Seconds that running requests have to finish when the engine is stopped.",
        "shutdown_timeout",
    ),
)
# The inputs of the planner.
PLANNED = tuple(setting.name for setting in SETTINGS if setting.memory == "input")

# Flags without a row, given as extra flags, that take no GPU memory, or no more than the variation between
# measurements. A flag that is neither here nor in a row is taken to change the memory.
_WITHOUT_ROW: dict[Server, frozenset[str]] = {
    "vllm": frozenset(
        {
            "allowed_headers",
            "allowed_local_media_path",
            "allowed_methods",
            "allowed_origins",
            "api_key",
            "chat_template",
            "chat_template_content_format",
            "default_chat_template_kwargs",
            "disable_access_log_for_endpoints",
            "disable_fastapi_docs",
            "disable_log_requests",
            "disable_log_stats",
            "disable_uvicorn_access_log",
            "download_dir",
            "enable_force_include_usage",
            "enable_log_outputs",
            "enable_log_requests",
            "enable_prefix_caching",
            "enable_prompt_tokens_details",
            "enable_request_id_headers",
            "enable_server_load_tracking",
            "generation_config",
            "kv_cache_metrics",
            "linear_backend",
            "load_format",
            "max_log_len",
            "max_logprobs",
            "middleware",
            "no_enable_prefix_caching",
            "otlp_traces_endpoint",
            "override_generation_config",
            "prefix_caching_hash_algo",
            "reasoning_parser",
            "response_role",
            "return_tokens_as_token_ids",
            "revision",
            "root_path",
            "scheduling_policy",
            "seed",
            "served_model_name",
            "ssl_ca_certs",
            "ssl_cert_reqs",
            "ssl_certfile",
            "ssl_keyfile",
            "structured_outputs_config",
            "swap_space",
            "tokenizer",
            "tokenizer_revision",
            "tool_parser_plugin",
            "trust_remote_code",
            "trust_request_chat_template",
            "uvicorn_log_level",
        }
    ),
    "llama_cpp": frozenset(
        {
            "alias",
            "api_key",
            "cache_prompt",
            "cache_reuse",
            "chat_template",
            "chat_template_file",
            "jinja",
            "log_verbosity",
            "metrics",
            "min_p",
            "mlock",
            "no_mmap",
            "no_slots",
            "numa",
            "offline",
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
    ),
}


def takes_no_memory(flag: str, server: Server) -> bool:
    """Whether the `flag` of `server`, with underscores, is known to take no GPU memory."""
    rows = (setting for setting in SETTINGS if setting.memory == "none")
    return flag in _WITHOUT_ROW[server] or any(flag in setting.flags(server, None) for setting in rows)


def flags(values: Mapping[str, object], server: Server) -> dict[str, object]:
    """The flags of `server` for `values` by setting; None uses the engine's default."""
    rows = (setting.flags(server, values[setting.name]) for setting in SETTINGS if setting.name in values)
    return {flag: value for row in rows for flag, value in row.items()}


def planned(values: Mapping[str, object], server: Server) -> dict[str, object]:
    """The `values` by setting that change the memory of `server`, except the context length."""
    rows = [setting for setting in SETTINGS if not setting.name.endswith("max_model_len")]
    unknown = {setting.name for setting in rows if setting.memory == "unknown" and setting.flags(server, None)}
    inputs = {setting.name for setting in rows if setting.memory == "input"}
    return {name: value for name, value in values.items() if name in unknown | inputs}


def check(values: Mapping[str, object]) -> None:
    """Require that each of the `values` by vLLM flag is valid; None uses the engine's default.

    Raises:
        Refused: A value is invalid.
    """
    for setting in SETTINGS:
        if values.get(setting.vllm) is not None:
            setting.check(values[setting.vllm])
