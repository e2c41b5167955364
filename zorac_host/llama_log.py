"""Parse what llama.cpp 0.5 (September 2026) logs at its start, at verbosity 4."""

import re
from typing import Any

# The buffers of a device by use; pinned host memory counts as the host's.
_BUFFER = re.compile(r"\b([A-Za-z]{1,20})\d{0,3}(_\w{1,20})? +(model|KV|compute) buffer size = +(\d{1,8}\.\d\d) MiB")
_CELLS = re.compile(r"\bllama_kv_cache: size = +[\d.]+ MiB \( *(\d{1,10}) cells,")
_CONTEXT = re.compile(r"\bllama_context: n_ctx_seq += (\d{1,10})$")
_LAYERS = re.compile(r"\boffloaded (\d{1,5})/(\d{1,5}) layers to GPU")
_PARTS = {"model": "weights_gib", "KV": "kv_gib", "compute": "activation_gib"}


class Log:
    """Parses the lines of one start."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._buffers: dict[str, dict[str, float]] = {}

    def line(self, line: str) -> None:
        """Parse `line`, which may be from any program."""
        if "buffer size =" in line and (match := _BUFFER.search(line)):
            name = "CPU" if match[2] == "_Host" else match[1]
            device = self._buffers.setdefault(name, dict.fromkeys(_PARTS, 0.0))
            device[match[3]] += float(match[4]) / 1024
        elif match := _CELLS.search(line):
            self._values["kv_tokens"] = max(int(match[1]), self._values.get("kv_tokens", 0))
        elif match := _CONTEXT.search(line.rstrip()):
            self._values["max_model_len"] = int(match[1])
        elif match := _LAYERS.search(line):
            self._values["offloaded_layers"] = [int(match[1]), int(match[2])]

    def values(self) -> dict[str, Any]:
        """The result as in `engine_log.read`: the memory of the GPUs, or of the CPU if they have no weights."""
        computing = [name for name, parts in self._buffers.items() if name != "CPU" and parts["model"]] or ["CPU"]
        if "CPU" not in self._buffers and computing == ["CPU"]:
            return {}
        parts = {key: round(sum(self._buffers[name][use] for name in computing), 3) for use, key in _PARTS.items()}
        return {**parts, **self._values, "kernels": computing}
