"""Check a model folder in the Hugging Face layout and print what it consists of, as one line of JSON.

Runs on the controller before anything is copied, and on the host after. Needs nothing but Python.
Usage: ``model_manifest.py FOLDER [--tekken] [--remember]``.
A fault is one line on standard error, ``[id] message``, and exit code 1.
"""

import argparse
import hashlib
import json
import os
import struct
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

_TOKENIZERS = ("tokenizer.json", "tekken.json", "tokenizer.model", "vocab.json")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zorac-deploy" / "model-digests.json"


class Fault(Exception):
    """The folder cannot be served."""


def manifest(folder: Path, tekken: bool = False, remember: bool = False) -> dict[str, object]:
    """What `folder` consists of: ``files`` (path to SHA-256), ``bytes``, and a ``digest`` over the files.

    Args:
        folder: The model's folder.
        tekken: Whether tekken.json has to be there.
        remember: Keep the digests in the user's cache and trust those of files whose size and time are the same.

    Raises:
        Fault: The folder is missing, lacks a file, or holds a damaged one.
    """
    check(folder, tekken)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = _remembered_digests(paths) if remember else _digests(paths)
    files = {str(path.relative_to(folder)): digest for path, digest in zip(paths, digests, strict=True)}
    whole = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return {"digest": whole, "bytes": sum(path.stat().st_size for path in paths), "files": files}


def check(folder: Path, tekken: bool) -> None:
    """Raise a Fault unless `folder` holds a whole model."""
    if not str(folder).strip("."):
        raise Fault("[model-missing] no model was named. Give one with --model FOLDER, or set model_weights_source.")
    if not folder.is_dir():
        raise Fault(f"[model-missing] there is no model folder {folder} on this machine. Give one with --model FOLDER.")
    config = _read_json(folder, "config.json")
    if not isinstance(config, dict) or not config:
        raise Fault(f"[model-damaged] {folder}/config.json holds no settings. Fetch the model again.")
    needed = ("tekken.json",) if tekken else _TOKENIZERS
    if not any((folder / name).is_file() for name in needed):
        reason = " (vllm_tokenizer_mode is mistral)" if tekken else ""
        raise Fault(f"[model-incomplete] {folder} has no {' or '.join(needed)}{reason}. Fetch the model again, whole.")
    for weights in weight_files(folder):
        read_header(weights)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that the model in `folder` is made of.

    Raises:
        Fault: One is missing, or there is none.
    """
    if (folder / "model.safetensors.index.json").is_file():
        index = _read_json(folder, "model.safetensors.index.json")
        names = sorted(set(index.get("weight_map", {}).values())) if isinstance(index, dict) else []
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise Fault(f"[model-incomplete] {folder} lacks {', '.join(missing) or 'weights'}. Fetch the rest.")
        return [folder / name for name in names]
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise Fault(f"[model-incomplete] {folder} has no *.safetensors file. Fetch the model again, whole.")
    return found


def _read_json(folder: Path, name: str) -> object:
    try:
        return json.loads((folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Fault(f"[model-incomplete] {folder} has no {name}. Fetch the model again, whole.") from None
    except ValueError as error:
        raise Fault(f"[model-damaged] {folder}/{name} is not JSON: {error}. Fetch it again.") from None


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """The header of a safetensors file: each tensor's ``dtype``, ``shape`` and ``data_offsets``.

    Such a file is eight bytes of header length (little endian), a JSON header, and the tensors' data.

    Raises:
        Fault: The file is not as long as its header says.
    """
    size = path.stat().st_size
    damaged = f"[model-damaged] {path} is {size} bytes long"
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= size - 8:
            raise Fault(f"{damaged} and has no whole header. It was cut off: fetch it again.")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError):
            raise Fault(f"{damaged} and its header is not readable. Fetch it again.") from None
    if size != 8 + length + end:
        raise Fault(f"{damaged}, and its header says {8 + length + end}. It was cut off: fetch it again.")
    return header


def _digests(paths: list[Path]) -> list[str]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_sha256, paths))


def _remembered_digests(paths: list[Path]) -> list[str]:
    try:
        known = json.loads(_CACHE.read_text())
    except (OSError, ValueError):
        known = {}
    keys = [f"{path.resolve()}:{(stat := path.stat()).st_size}:{stat.st_mtime_ns}:{stat.st_ino}" for path in paths]
    unknown = [(key, path) for key, path in zip(keys, paths, strict=True) if key not in known]
    if unknown:
        fresh = _digests([path for _, path in unknown])
        known |= dict(zip((key for key, _ in unknown), fresh, strict=True))
        _CACHE.parent.mkdir(parents=True, exist_ok=True)
        scratch = _CACHE.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(known))
        scratch.replace(_CACHE)
    return [known[key] for key in keys]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    """Print the manifest of the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tekken", action=argparse.BooleanOptionalAction, default=False)
    parser.add_argument("--remember", action="store_true")
    arguments = parser.parse_args()
    try:
        print(json.dumps(manifest(arguments.folder, arguments.tekken, arguments.remember)))
    except (Fault, OSError) as fault:
        sys.exit(str(fault))


if __name__ == "__main__":
    main()
