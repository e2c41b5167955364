"""What a model is planned for: GPUs, an engine and its settings, as one value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from zorac_deploy.planner.engine import Card, Engine
from zorac_deploy.planner.flags import Flags


@dataclass(frozen=True)
class Setup:
    """What a model is planned for.

    Attributes:
        card: The GPUs. A `count` of 0 is the CPU, for llama.cpp alone.
        engine: The version of vLLM; for llama.cpp it does not matter.
        flags: The flags that decide its memory, by vLLM's names.
        dtype: The type that vLLM computes in.
        settings: Other flags of the engine, with underscores for dashes, and its environment.
    """

    card: Card
    engine: Engine
    flags: Flags
    dtype: str = "auto"
    settings: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The setup as JSON has it; `load` reads it."""
        summary: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return summary

    @classmethod
    def load(cls, summary: Mapping[str, Any]) -> "Setup":
        """The setup whose `summary` this is."""
        return _ADAPTER.validate_python(summary)


_ADAPTER = TypeAdapter(Setup)
