"""The revision of each source when it was first resolved. A model changes only on request."""

import json
import os
from pathlib import Path

import platformdirs


def get(source: str) -> str | None:
    """The pinned source of `source`, if any."""
    return _read().get(source)


def put(source: str, pinned: str) -> None:
    """Pin `source` to `pinned`."""
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps({**_read(), source: pinned}, indent=2) + "\n", encoding="utf-8")
    scratch.replace(path)


def _path() -> Path:
    return platformdirs.user_data_path("zorac-deploy") / "revisions.json"


def _read() -> dict[str, str]:
    try:
        return dict(json.loads(_path().read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}
