"""From what a person wrote for a model to its files: the same ones each time, until somebody asks for others."""

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

# Also in outline.py, which takes its time to load, and in the programs on the host.
_RECORD = ".zorac-deploy.json"
_HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Resolved:
    """A model and its files.

    Attributes:
        source: What brings the very same files again: a commit in place of a branch.
        kind: ``copy`` if the files are on this machine, ``fetch`` if the host has to fetch them.
        folder: The model on this machine, or an outline of it, see `outline`. A GGUF model may be a file.
        manifest: ``source``, ``format``, ``bytes``, the ``files`` with ``size`` and ``sha256``, and their ``digest``.
        urls: Where each file is; empty if they are on this machine.
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
    """The address of the hub: huggingface.co, or what stands in HF_ENDPOINT."""
    return os.environ.get("HF_ENDPOINT", _HUB).rstrip("/")


def resolve(
    text: str, *, tekken: bool = False, pickle: bool = False, refresh: bool = False, hub: str = "", token: str = ""
) -> Resolved:
    """The files of the model that `text` means.

    What a branch of a hub, or a web server, held when it was first asked for is remembered, and nobody is asked again.

    Args:
        text: The source: ``hf://…``, ``https://…``, or a path.
        tekken: Whether tekken.json has to be there.
        pickle: Whether weights may be pickles.
        refresh: Ask anew.
        hub: The address of the hub; that of `endpoint` unless given.
        token: A token for the hub; the user's own unless given.

    Raises:
        Refused: It is no model, or none that can be had.
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
        found = model_manifest.manifest(path, tekken, remember=True, pickle=pickle)
    except Refusal as fault:
        raise Refused(str(fault), fault.refusal) from None
    except OSError as fault:
        raise Refused(f"cannot read {path}: {fault}.", "model-damaged") from None
    return Resolved(str(path), "copy", str(path), {"source": str(path), **found}, {})


def _remote(folder: Path, tekken: bool, pickle: bool) -> Resolved:
    record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    urls = {name: file.pop("url") for name, file in record["files"].items()}
    model = folder / min(urls) if all(name.endswith(".gguf") for name in urls) else folder
    try:
        found = model_manifest.check(model, tekken, pickle)
    except Refusal as fault:
        # The folder is ours; the person knows the source.
        raise Refused(str(fault).replace(str(folder), record["source"]), fault.refusal) from None
    size = sum(file["size"] for file in record["files"].values())
    whole = {**record, "format": found, "bytes": size, "digest": model_manifest.digest(record["files"])}
    return Resolved(record["source"], "fetch", str(model), whole, urls)


def _hub_outline(source: Hub, pickle: bool, refresh: bool, at: str, token: str) -> Path:
    """The outline of the commit that `source` meant when it was first asked for, or means now."""
    key = f"{at} {source}"
    commit = source.revision if source.pinned else "" if refresh else pins.get(key)
    wanted = replace(source, revision=commit or source.revision)
    folder = _folder(f"{at} {wanted}", source.name)
    if commit and folder.is_dir():
        return folder
    from zorac_deploy.models import hub, outline  # here, for it takes its time, and most runs do not need it

    listed = hub.listing(wanted, at, pickle, token)
    folder = _folder(f"{at} {listed.source}", source.name)
    outline.make(listed, folder)
    if not source.pinned:
        pins.put(key, listed.revision)
    return folder


def _web_outline(source: Web, pickle: bool, refresh: bool) -> Path:
    """The outline of what the server had when it was first asked, or has now."""
    folder = _folder(str(source), source.name)
    if refresh or not folder.is_dir():
        from zorac_deploy.models import outline, web

        outline.make(web.listing(source, pickle), folder)
    return folder


def _folder(pinned: str, name: str) -> Path:
    key = hashlib.sha256(pinned.encode()).hexdigest()[:16]
    return platformdirs.user_cache_path("zorac-deploy") / "outlines" / key / name
