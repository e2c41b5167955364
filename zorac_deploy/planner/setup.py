"""The setup of a plan: GPUs, an engine and its settings, as one value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

from zorac_deploy.planner.engine import Card, Engine
from zorac_deploy.planner.flags import Flags


@dataclass(frozen=True)
class Setup:
    """The setup of a plan.

    Attributes:
        card: The GPUs. A `count` of 0 is the CPU, for llama.cpp only.
        engine: The version of vLLM; llama.cpp ignores it.
        flags: The flags that decide the memory, by vLLM's names.
        dtype: The data type that vLLM computes in.
        settings: Other flags of the engine, with underscores for dashes, and its environment.
    """

    card: Card
    engine: Engine
    flags: Flags
    dtype: str = "auto"
    settings: Mapping[str, str] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The setup as JSON; `load` reads it."""
        summary: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return summary

    @classmethod
    def load(cls, summary: Mapping[str, Any]) -> "Setup":
        """The setup with this `summary`."""
        return _ADAPTER.validate_python(summary)


_ADAPTER = TypeAdapter(Setup)
