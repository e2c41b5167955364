"""The progress of a task that writes to a host's disk: how much the used space has grown since it began."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from zorac_deploy.connection import Connection
from zorac_deploy.runner import Step

_BASE_SECONDS = 1.0
_LONG_SECONDS = 5.0
_GIB = 2**30


@dataclass
class _Task:
    """A running task, in a role that announced how much it writes."""

    step: Step
    path: str
    bytes: int
    began: float
    free: int | None = None


class Growth:
    """Follows the steps of a run. If a role announced its size, `on_step` gets notes for its long tasks.

    A role announces it with a fact of its name and ``_space``, which has a ``path`` and ``bytes``.
    """

    def __init__(self, connection: Connection, on_step: Callable[[Step], None]) -> None:
        self._connection, self._on_step = connection, on_step
        self._spaces: dict[str, Mapping[str, Any]] = {}
        self._task: _Task | None = None
        self._done = threading.Event()

    def step(self, step: Step) -> None:
        """Record `step`."""
        self._spaces |= {name: fact for name, fact in step.facts.items() if name.endswith("_space")}
        if step.outcome == "started":
            space = self._spaces.get(f"{step.role}_space") or {}
            size = int(space.get("bytes", 0))
            self._task = _Task(step, str(space["path"]), size, time.monotonic()) if size else None

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Poll the disk within the context."""
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join(timeout=1)  # an unreachable host may take longer to answer

    def _watch(self) -> None:
        while not self._done.wait(_BASE_SECONDS):
            task = self._task
            if task is None or time.monotonic() - task.began < _BASE_SECONDS:
                continue
            if task.free is None:
                task.free = self._free(task.path)
            elif time.monotonic() - task.began >= _LONG_SECONDS:
                free = self._free(task.path)
                if free is not None and task is self._task and not self._done.is_set():
                    self._on_step(replace(task.step, outcome="waiting", note=_note(task.free - free, task.bytes)))
                self._done.wait(_LONG_SECONDS)

    def _free(self, path: str) -> int | None:
        """The free bytes of the disk that has `path`; None if the host does not report it."""
        done = self._connection.run("stat", "--file-system", "--format=%S %f", path, root=False)
        fields = done.stdout.split()
        return int(fields[0]) * int(fields[1]) if done.returncode == 0 and len(fields) == 2 else None


def _note(grown: int, size: int) -> str:
    """How much of `size` bytes, an estimate, is written."""
    share = min(max(grown, 0) / size, 0.99)
    return f"{max(grown, 0) / _GIB:.1f} of about {size / _GIB:.1f} GiB ({share:.0%})"
