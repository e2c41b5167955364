"""Resolve a model source to its files: the same ones each time, until a refresh is requested."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import platformdirs

from zorac_deploy.errors import Refused
from zorac_deploy.models import pins
from zorac_deploy.models.source import Hub, Web, parse
from zorac_host import model_manifest
from zorac_host.refusal import Refusal

# Also in outline.py, whose import is slow, and in the host programs.
_RECORD = ".zorac-deploy.json"
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Resolved:
    """A model and its files.

    Attributes:
        source: The pinned source, which gives the same files again: with a commit, not a branch.
        kind: ``copy`` if the files are on this machine, ``fetch`` if the host downloads them.
        folder: The local model, or its metadata, see `outline`. A GGUF model may be a file.
        manifest: ``source``, ``format``, ``bytes``, the ``files`` with ``size`` and ``sha256``, and their ``digest``.
        urls: The address of each file; empty if they are on this machine.
    """

    source: str
    kind: Literal["copy", "fetch"]
    folder: str
    manifest: Mapping[str, Any]
    urls: Mapping[str, str]

    def summary(self) -> dict[str, object]:
        """The model as JSON has it."""
        return asdict(self)


def endpoint() -> str:
    """The address of the hub: HF_ENDPOINT, or huggingface.co."""
    return os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")


def resolve(
    text: str, *, tekken: bool = False, pickle: bool = False, refresh: bool = False, hub: str = "", token: str = ""
) -> Resolved:
    """Resolve the source `text` to files.

    The first answer for a branch of a hub, or for a web server, is stored, and used from then on.

    Args:
        text: The source: ``hf://…``, ``https://…``, or a path.
        tekken: Whether tekken.json is required.
        pickle: Whether weights may be pickles.
        refresh: Resolve it again.
        hub: The address of the hub; by default that of `endpoint`.
        token: A hub token; by default the user's own.

    Raises:
        Refused: It is not a model, or it cannot be downloaded.
    """
    source = parse(text)
    if isinstance(source, Path):
        return _local(source, tekken, pickle)
    if isinstance(source, Hub):
        folder = _hub_outline(source, pickle, refresh, hub.rstrip("/") or endpoint(), token)
    else:
        folder = _web_outline(source, pickle, refresh)
    return _remote(folder, tekken, pickle)


def _local(path: Path, tekken: bool, pickle: bool) -> Resolved:
    try:
        manifest = model_manifest.manifest(path, tekken, remember=True, pickle=pickle)
    except Refusal as fault:
        raise Refused(str(fault), fault.refusal) from None
    except OSError as fault:
        raise Refused(f"cannot read {path}: {fault}.", "model-damaged") from None
    return Resolved(str(path), "copy", str(path), {"source": str(path), **manifest}, {})


def _remote(folder: Path, tekken: bool, pickle: bool) -> Resolved:
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    urls = {name: file.pop("url") for name, file in record["files"].items()}
    model = folder / min(urls) if all(name.endswith(".gguf") for name in urls) else folder
    try:
        model_format = model_manifest.check(model, tekken, pickle)
    except Refusal as fault:
        # the directory is ours; the user knows the source
        raise Refused(str(fault).replace(str(folder), record["source"]), fault.refusal) from None
    size = sum(file["size"] for file in record["files"].values())
    manifest = {**record, "format": model_format, "bytes": size, "digest": model_manifest.digest(record["files"])}
    return Resolved(record["source"], "fetch", str(model), manifest, urls)


def _hub_outline(source: Hub, pickle: bool, refresh: bool, at: str, token: str) -> Path:
    """The metadata of the commit that `source` is pinned to, or that it means now."""
    key = f"{at} {source}"
    commit = source.revision if source.pinned else "" if refresh else pins.get(key)
    pinned = replace(source, revision=commit or source.revision)
    folder = _folder(f"{at} {pinned}", source.name)
    if commit and folder.is_dir():
        return folder
    from zorac_deploy.models import hub, outline  # here: the import is slow, and few runs need it

    listed = hub.listing(pinned, at, pickle, token)
    folder = _folder(f"{at} {listed.source}", source.name)
    outline.make(listed, folder)
    if not source.pinned:
        pins.put(key, listed.revision)
    return folder


def _web_outline(source: Web, pickle: bool, refresh: bool) -> Path:
    """The metadata of the files that the server listed first, or lists now."""
    folder = _folder(str(source), source.name)
    if refresh or not folder.is_dir():
        from zorac_deploy.models import outline, web

        outline.make(web.listing(source, pickle), folder)
    return folder


def _folder(pinned: str, name: str) -> Path:
    key = hashlib.sha256(pinned.encode()).hexdigest()[:16]
    return platformdirs.user_cache_path("zorac-deploy") / "outlines" / key / name
