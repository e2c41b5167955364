"""Parse what vLLM 0.10 to 0.33 logs at its start, and compare it with the plan.

Nothing here fails: an unknown line or plan is ignored.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from zorac_host import llama_log, slow_kernels

# The planner is within 2 % of the loaded size; a checkpoint loaded without its quantization takes at least half as much
# again. The second limit is for models so small that buffers and rounding matter.
_MORE_FACTOR, _MORE_GIB = 1.1, 0.5

_LINE_LIMIT = 8192  # the longest that is needed, vLLM's configuration, has half of that
# systemd's own line, and vLLM's first line with its version: earlier lines are from an engine that has ended.
_START = re.compile(r"^Starting \S+\.service\b|\bnon-default args: ")
_KERNEL = re.compile(
    r"\b(?:Using|Selected) (\w{1,60}Kernel) for\b|\bUsing (\w{1,20}_marlin) kernel\b|\bso forcing (awq|gptq)\b"
    r"|\b(awq) quantization is not fully optimized\b"
)
# Not the backends of mixtures of experts, of the vision encoder, or of Transformers' model code.
_ATTENTION = re.compile(
    r"\bUsing (?:AttentionBackendEnum\.)?((?!Transformers )\w{1,40}(?: Attention| MLA| SDPA)?) (?:attention )?backend"
    r"(?:\.\s*$|.{0,80} on V1 engine| out of potential backends)"
)
_QUANTIZATION = re.compile(r"\bInitializing a V1 LLM engine .*? quantization=([\w-]{1,40})")


def _last(_: float, value: float) -> float:
    return value


_GIB, _COUNT = r"(-?\d{1,6}(?:\.\d{1,6})?)", r"(\d[\d,]{0,15})"
_Row: TypeAlias = tuple[str, str, str, Callable[[float, float], float]]
# A key, a part of the line, the whole line, and the choice among workers: the fullest GPU decides, so it is the highest
# usage and the lowest free memory.
_ROWS: tuple[_Row, ...] = (
    ("weights_gib", "Model loading took", f"Model loading took {_GIB} GiB", max),
    ("activation_gib", "GiB for peak activation", f"{_GIB} GiB for peak activation", max),
    ("non_torch_gib", "GiB for non-torch memory", f"{_GIB} GiB for non-torch memory", max),
    ("consumed_gib", "GiB for consumed memory", f"{_GIB} GiB for consumed memory", max),
    ("graphs_gib", "Graph capturing finished", rf"Graph capturing finished in \d+ secs, took {_GIB} GiB", max),
    ("kv_gib", "Available KV cache memory", f"Available KV cache memory: {_GIB} GiB", min),
    ("kv_gib", "memory for KV Cache", f"reserved {_GIB} ?GiB memory for KV Cache", min),
    ("kv_gib", "GiB for KV cache on node", rf"set \({_GIB}/[\d.]+\) GiB for KV cache on node", min),
    ("kv_tokens", "KV cache size:", f"KV cache size: {_COUNT} tokens", min),
    ("max_concurrency", "Maximum concurrency for", rf"concurrency for [\d,]+ tokens per request: {_GIB}x", min),
    ("max_model_len", "Using max model len", f"Using max model len {_COUNT}", _last),
    ("max_model_len", "Maximum concurrency for", f"Maximum concurrency for {_COUNT} tokens", _last),
)
_NUMBERS = tuple((key, part, re.compile(pattern), choose) for key, part, pattern, choose in _ROWS)
_WHOLE = ("kv_tokens", "max_model_len")


@dataclass(frozen=True)
class Refusal:
    """Why a running engine is not as planned.

    Attributes:
        cause: An id.
        message: What was found, what was planned, and what to do.
    """

    cause: str
    message: str


def read(lines: Iterable[str]) -> dict[str, Any]:
    """Parse the log of the last engine start.

    Args:
        lines: The unit's journal.

    Returns:
        The values found: ``weights_gib``, ``activation_gib``, ``non_torch_gib``, ``graphs_gib``, ``kv_gib``,
        ``kv_tokens``, ``max_concurrency``, ``max_model_len``, ``kernels`` (names, in the order of their lines; of
        llama.cpp the kinds of devices with weights), ``attention_backend``, ``quantization`` and
        ``offloaded_layers`` (how many, of how many).
    """
    values: dict[str, Any] = {}
    llama = llama_log.Log()
    for line in lines:
        line = line[:_LINE_LIMIT]
        if _START.search(line):
            values, llama = {}, llama_log.Log()
        llama.line(line)
        for key, part, pattern, choose in _NUMBERS:
            if part in line and (match := pattern.search(line)):
                value = (int if key in _WHOLE else float)(match[1].replace(",", ""))
                values[key] = choose(values.get(key, value), value)
        if match := _KERNEL.search(line):
            name = match[match.lastindex or 0]
            values["kernels"] = list(dict.fromkeys([*values.get("kernels", []), name]))
        if " backend" in line and (match := _ATTENTION.search(line)):
            values.setdefault("attention_backend", match[1])
        if match := _QUANTIZATION.search(line):
            values["quantization"] = match[1].lower()
    consumed = values.pop("consumed_gib", None)  # since 0.27, the weights and the memory outside torch in one number
    if consumed is not None and "weights_gib" in values:
        values["non_torch_gib"] = round(max(consumed - values["weights_gib"], 0), 2)
    return {**llama.values(), **values}


def judge(logged: Mapping[str, Any], plan: object) -> Refusal | None:
    """Why the engine is not as planned; None if it is, or without a plan.

    Args:
        logged: The result of `read`.
        plan: The generation's plan, with ``predicted`` and ``card`` if known.
    """
    card = _part(plan, "card")
    return _loaded_more(logged, _part(plan, "predicted")) or _slow_kernel(logged, card) or _off_card(logged, card)


def _loaded_more(logged: Mapping[str, Any], predicted: Mapping[str, Any]) -> Refusal | None:
    weights, planned = logged.get("weights_gib"), predicted.get("weights_gib")
    if weights is None or not isinstance(planned, int | float) or not planned > 0:
        return None
    if weights - _MORE_GIB <= planned or weights / _MORE_FACTOR <= planned:
        return None
    quantization = f" (vLLM logged quantization={logged['quantization']})" if "quantization" in logged else ""
    return Refusal(
        "engine-loaded-more",
        f"the engine loaded {weights:.2f} GiB of weights, but {planned:.2f} GiB were planned. Most likely it did not "
        f"apply the checkpoint's quantization{quantization}. Check quantization_config in the model's config.json, and "
        "quantization and load_format in vllm_service_extra_flags, then re-run the command",
    )


def _slow_kernel(logged: Mapping[str, Any], card: Mapping[str, Any]) -> Refusal | None:
    compute = re.fullmatch(r"(\d{1,3})\.(\d{1,3})", str(card.get("compute")))
    kernels = logged.get("kernels", [])
    for name in kernels:
        slow = slow_kernels.SLOW.get(name)
        if not compute or not slow or (int(compute[1]), int(compute[2])) < slow.compute:
            continue
        if not set(slow.better) & set(kernels):
            return Refusal(
                "engine-slow-kernel",
                f"the engine uses the kernel {name}, but the much faster {slow.better[0]} runs on this GPU "
                f"({card.get('name', 'unnamed')}, compute capability {compute[0]}). {slow.cure}",
            )
    return None


def _off_card(logged: Mapping[str, Any], card: Mapping[str, Any]) -> Refusal | None:
    """llama.cpp computes on the CPU what does not fit on a device, and reports it only in its log."""
    none = logged.get("offloaded_layers", [0])[0] == 0 and logged.get("kernels") == ["CPU"]
    if not none or not card.get("compute"):
        return None
    return Refusal(
        "engine-slow-kernel",
        f"no layer runs on {card.get('name', 'the GPU')}: the CPU computes all of them, many times slower. "
        "Remove n_gpu_layers from llama_cpp_extra_flags. If it is not set there, llama.cpp found no GPU: see the log "
        "with zorac-deploy logs",
    )


def _part(plan: object, name: str) -> Mapping[str, Any]:
    part = plan.get(name) if isinstance(plan, dict) else None
    return part if isinstance(part, dict) else {}
