"""vLLM's tokenizer mode and tool-call parser for each model family.

A model may have the architecture of one family and the tool calls of another: Hermes has Llama's architecture.
Therefore a row matches only if the chat template has the markers that its parser reads.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# A template is a few kilobytes; a longer file is not one.
_LONGEST = 2**20

_MISTRAL = ("mistral", "mistral3", "ministral", "ministral3", "mixtral")
_QWEN = ("qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl", "qwen3", "qwen3_moe", "qwen3_vl", "qwen3_vl_moe")
_QWEN_NEW = ("qwen3_next", "qwen3_5", "qwen3_5_moe")


@dataclass(frozen=True)
class Family:
    """A family of models with the same format of tool calls.

    Attributes:
        name: Its usual name.
        model_types: The ``model_type`` values in config.json.
        parser: vLLM's tool-call parser, in 0.26 and 0.32; None if the model's files lack what a parser needs.
        markers: Texts that the chat template has, all of them.
    """

    name: str
    model_types: tuple[str, ...]
    parser: str | None
    markers: tuple[str, ...] = ()


# The first matching row is used. Sources: vLLM's docs/features/tool_calling.md and its parsers.
FAMILIES = (
    Family("Mistral", _MISTRAL, "mistral", ("[TOOL_CALLS]",)),
    Family("Qwen3-Coder, Qwen3.5", (*_QWEN, *_QWEN_NEW), "qwen3_xml", ("<function=",)),
    Family("Qwen2.5, Qwen3", (*_QWEN, *_QWEN_NEW), "hermes", ("<tool_call>",)),
    Family("Hermes", ("llama", *_MISTRAL), "hermes", ("<tool_call>",)),
    Family("Llama 3.1 to 3.3", ("llama", "mllama"), "llama3_json", ("Environment: ipython",)),
    Family("Granite 3", ("granite", "granitemoe"), "granite", ("tool_call",)),
    Family("Granite 4", ("granitemoehybrid",), "granite4", ("<tool_call>",)),
    Family("DeepSeek V3, R1", ("deepseek_v3",), "deepseek_v3", ("<｜tool▁calls▁begin｜>", "```json")),  # noqa: RUF001
    Family("DeepSeek V3.1", ("deepseek_v3",), "deepseek_v31", ("<｜tool▁calls▁begin｜>",)),  # noqa: RUF001
    Family("GLM-4.5 to 4.7", ("glm4_moe", "glm4_moe_lite"), "glm47", ("<arg_key>",)),
    Family("gpt-oss", ("gpt_oss",), "openai", ("<|channel|>",)),
    Family("FunctionGemma", ("gemma3_text",), "functiongemma", ("<start_function_call>",)),
    Family("Gemma 4", ("gemma4", "gemma4_text"), "gemma4", ("<|tool_call>",)),
    Family("Gemma 1 to 3", ("gemma", "gemma2", "gemma3", "gemma3_text"), None),
    Family("Phi", ("phi", "phi3", "phimoe"), None),
)


@dataclass(frozen=True)
class Served:
    """The flags for a model that the inventory leaves open.

    Attributes:
        family: The family's name; empty if unknown.
        tokenizer_mode: vLLM's flag of the same name.
        tool_call_parser: vLLM's flag of the same name; None for no tool calls.
        notes: Notes for the user.
    """

    family: str
    tokenizer_mode: str
    tool_call_parser: str | None
    notes: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """The object that JSON output has."""
        return {**asdict(self), "notes": list(self.notes)}


def served(model: Path) -> Served:
    """The flags for `model`: a directory, or a GGUF file, which vLLM does not serve."""
    if not (model / "config.json").is_file():
        return Served("", "auto", None)
    if (model / "tekken.json").is_file():  # Mistral's own tokenizer, which includes the chat format
        return Served("Mistral", "mistral", "mistral")
    model_type, template = str(_json(model / "config.json").get("model_type", "")), chat_template(model)
    family = next(
        (row for row in FAMILIES if model_type in row.model_types and all(mark in template for mark in row.markers)),
        None,
    )
    notes = []
    if not template:
        notes.append("the model has no chat template, so vLLM answers chats with 400. It may be a base model.")
    if model_type in _MISTRAL and "[INST]" in template:
        notes.append(
            "the model has no tekken.json, so vLLM uses the Hugging Face tokenizer. It may answer the long chats that "
            "Zorac summarizes with 400. Copy the original model's tekken.json into the directory."
        )
    if family is None or family.parser is None:
        named = family.name if family else f"model_type {model_type or 'not set'}"
        notes.append(
            f"no tool-call parser is known for this model ({named}): served without tool calls. If you know one, set "
            "vllm_tool_call_parser."
        )
    return Served(family.name if family else "", "auto", family.parser if family else None, tuple(notes))


def chat_template(folder: Path) -> str:
    """The concatenated chat templates of the model in `folder`; empty for none."""
    templates = [_text(path) for path in (folder / "chat_template.jinja", *folder.glob("*/chat_template*.jinja"))]
    for name in ("tokenizer_config.json", "chat_template.json"):
        template = _json(folder / name).get("chat_template")
        named_templates = template if isinstance(template, list) else [template]
        templates += [
            str(named_template.get("template", ""))
            if isinstance(named_template, Mapping)
            else str(named_template or "")
            for named_template in named_templates
        ]
    return "\n".join(text for text in templates if text)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _text(path: Path) -> str:
    try:
        readable = path.is_file() and path.stat().st_size <= _LONGEST
        return path.read_text(encoding="utf-8") if readable else ""
    except (OSError, UnicodeDecodeError):
        return ""
