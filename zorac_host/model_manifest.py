"""Check a model, a directory in the Hugging Face layout or a GGUF file, and list its files.

It runs on the controller before the copy, and on the host afterwards. A directory with one GGUF file is the same as
the file.
"""

import hashlib
import json
import math
import os
import re
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from zorac_host.refusal import Refusal

_TOKENIZERS = ("tokenizer.json", "tekken.json", "tokenizer.model", "vocab.json")
_GGUF_PART = re.compile(r"-\d{5}-of-(?P<parts>\d{5})\.gguf$")
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors format, and more than any index has
_LARGEST = 2**63
_NAMED = 5  # files in a message
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zorac-deploy" / "model-digests.json"


def manifest(model: Path, tekken: bool = False, remember: bool = False, pickle: bool = False) -> dict[str, object]:
    """List the files of `model`.

    Args:
        model: The model's directory, or its GGUF file.
        tekken: Whether tekken.json is required.
        remember: Cache the digests for the user, and use those of files with the same size and time.
        pickle: Whether weights may be pickles.

    Returns:
        ``files`` (path to ``size`` and ``sha256``), ``bytes``, their `digest`, and the ``format``, see `check`. Hidden
        files are not part of a model: git, the hub's client and zorac-deploy create them.

    Raises:
        Refusal: The model is missing, incomplete or damaged.
    """
    model_format = check(model, tekken, pickle)
    root = model if model.is_dir() else model.parent
    paths = _files(model) if model.is_dir() else gguf_files(model)
    digests = _remembered_digests(paths) if remember else _digests(paths)
    files = {
        str(path.relative_to(root)): {"size": path.stat().st_size, "sha256": sha256}
        for path, sha256 in zip(paths, digests, strict=True)
    }
    size = sum(path.stat().st_size for path in paths)
    return {"digest": digest(files), "bytes": size, "files": files, "format": model_format}


def digest(files: dict[str, dict[str, Any]]) -> str:
    """The identity of a model: a digest of the names and the SHA-256 of its files."""
    hashes = {name: file["sha256"] for name, file in files.items()}
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def _files(folder: Path) -> list[Path]:
    """The model's own files.

    Raises:
        Refusal: A file is not regular, or links to something outside of the model, which would be copied too.
    """
    files = []
    for path in sorted(folder.rglob("*")):
        if any(part[0] == "." for part in path.relative_to(folder).parts) or (path.is_dir() and not path.is_symlink()):
            continue
        target = path.resolve()
        # A hub's cache stores the files of a model elsewhere.
        blob = target.parent.name == "blobs" and target.parent.parent.name.startswith("models--")
        if not blob and not target.is_relative_to(folder.resolve()):
            raise Refusal(
                f"{path} is a link to {target}, outside the model. Replace it with the file itself.", "model-unsafe"
            )
        _require_file(path)
        _require_plain(str(path.relative_to(folder)), folder)
        files.append(path)
    return files


def _require_plain(name: str, folder: Path) -> None:
    """Require a name without `$`, which begins a variable in Ansible, and without control characters."""
    if "$" in name or not name.isprintable():
        raise Refusal(
            f"the file {name!r} in {folder} has a name with '$' or a control character. Rename it.", "model-unsafe"
        )


def _require_file(path: Path) -> None:
    """Require that `path` is a regular file: reading a pipe blocks, and a device has no end."""
    if not path.is_file():
        raise Refusal(f"{path} is not a regular file. Remove it from the model.", "model-unsafe")


def check(model: Path, tekken: bool, pickle: bool = False) -> str:
    """The format of `model`: ``safetensors``, ``pickle``, or ``gguf`` for a file or directory of llama.cpp.

    Raises:
        Refusal: The model is incomplete.
    """
    if not str(model).strip("."):
        raise Refusal("no model named. Name one with --model SOURCE, or set model_weights_source.", "model-missing")
    if not model.exists():
        raise Refusal(f"model not found on this machine: {model}. Name one with --model SOURCE.", "model-missing")
    files = gguf_files(model)
    if files:
        _check_gguf(files)
        return "gguf"
    if not model.is_dir():
        raise Refusal(
            f"{model} is neither a directory nor a *.gguf file. Name one with --model SOURCE.", "model-missing"
        )
    return _check_folder(model, tekken, pickle)


def gguf_files(model: Path) -> list[Path]:
    """The GGUF files of `model`, in order; empty for another format.

    Raises:
        Refusal: There are several models, or a part of one is missing.
    """
    if model.is_file():
        files = [model] if model.suffix == ".gguf" else []
    else:
        files = [] if any(model.glob("*.safetensors")) else sorted(model.glob("*.gguf"))
    part = _GGUF_PART.search(files[0].name) if files else None
    if part and len(files) in (1, int(part["parts"])):
        stem = files[0].name[: part.start()]
        names = [f"{stem}-{number:05}-of-{part['parts']}.gguf" for number in range(1, int(part["parts"]) + 1)]
        missing = [name for name in names if not (files[0].parent / name).is_file()]
        if missing:
            raise Refusal(f"{files[0].parent} lacks {_some(missing)}. Download the rest.", "model-incomplete")
        return [files[0].parent / name for name in names]
    if len(files) > 1:
        raise Refusal(
            f"{model} has several GGUF files: {', '.join(path.name for path in files)}. Name one of them by its path.",
            "model-incomplete",
        )
    return files


def _check_gguf(files: list[Path]) -> None:
    """Require that each of `files` begins as a GGUF file. Only its parser knows its length."""
    for path in files:
        _require_file(path)
        with path.open("rb") as file:
            start = file.read(8)
        if start[:4] != b"GGUF" or len(start) < 8 or not 2 <= struct.unpack("<I", start[4:])[0] <= 3:
            raise Refusal(f"{path} is not a GGUF file of version 2 or 3. Download it again.", "model-damaged")


def _check_folder(folder: Path, tekken: bool, pickle: bool) -> str:
    """Require a complete model in the Hugging Face layout in `folder`, and return its format."""
    config = read_json(folder, "config.json")
    if not isinstance(config, dict) or not config:
        raise Refusal(f"{folder}/config.json has no settings. Download the model again.", "model-damaged")
    needed = ("tekken.json",) if tekken else _TOKENIZERS
    if not any((folder / name).is_file() for name in needed):
        reason = ", which vllm_tokenizer_mode: mistral needs" if tekken else ""
        cure = "Set vllm_tokenizer_mode to auto." if tekken else "Download the whole model again."
        raise Refusal(f"{folder} has no {' or '.join(needed)}{reason}. {cure}", "model-incomplete")
    pickles = [] if any(folder.glob("*.safetensors*")) else _pickles(folder)
    if pickles and pickle:
        return "pickle"
    if pickles:
        raise Refusal(
            f"{folder} has its weights only as pickles ({pickles[0]}), and loading a pickle runs code from it. Use a "
            "model with *.safetensors files. If you trust its author, set model_weights_pickle_allowed: true.",
            "model-unsafe",
        )
    for weights in weight_files(folder):
        read_header(weights)
    return "safetensors"


def _some(names: list[str]) -> str:
    """The first of `names`, and how many more there are."""
    left_out = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {left_out} more" if left_out > 0 else "")


def _pickles(folder: Path) -> list[str]:
    return sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of the model in `folder`.

    Raises:
        Refusal: A file is missing, or there is none.
    """
    if (folder / "model.safetensors.index.json").is_file():
        names = _indexed(folder)
        missing = [name for name in names if not (folder / name).is_file()]
        if missing or not names:
            raise Refusal(f"{folder} lacks {_some(missing) or 'weights'}. Download the rest.", "model-incomplete")
        return [folder / name for name in names]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise Refusal(f"{folder} has no *.safetensors file. Download the whole model again.", "model-incomplete")
    return files


def _indexed(folder: Path) -> list[str]:
    """The files listed in the index of the model in `folder`.

    Raises:
        Refusal: It is not an index, or lists what is not a file of the model.
    """
    index = read_json(folder, "model.safetensors.index.json")
    named = index.get("weight_map", {}) if isinstance(index, dict) else {}
    names = set(map(str, named.values())) if isinstance(named, dict) else {str(named)}
    for name in names:
        parts = PurePosixPath(name).parts
        if not parts or len(name) > 255 or any(part[0] in "./" for part in parts):
            raise Refusal(
                f"model.safetensors.index.json in {folder} names {name[:80]!r}, which is not a file of the model. "
                "Download the model again.",
                "model-damaged",
            )
    return sorted(names)


def read_json(folder: Path, name: str) -> object:
    """The content of the JSON file `name` of the model in `folder`.

    Raises:
        Refusal: It is missing, or cannot be read.
    """
    path = folder / name
    try:
        if path.exists():
            _require_file(path)
        if path.stat().st_size > _LONGEST_HEADER:
            raise ValueError(f"it has {path.stat().st_size} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise Refusal(f"{folder} has no {name}. Download the whole model again.", "model-incomplete") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Refusal(f"{path} cannot be read as JSON: {error}. Download it again.", "model-damaged") from None


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """The header of a safetensors file: each tensor's ``dtype``, ``shape`` and ``data_offsets``.

    Such a file is eight bytes of header length (little endian), a JSON header, and the tensors' data.

    Raises:
        Refusal: The file's size differs from its header.
    """
    _require_file(path)
    size = path.stat().st_size
    damaged = f"{path} has {size} bytes"
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= size - 8:
            raise Refusal(f"{damaged} and no complete header. It was cut off: download it again.", "model-damaged")
        content = file.read(length) if length <= _LONGEST_HEADER else b""
    try:
        header = json.loads(content)
        header.pop("__metadata__", None)
        end = max(map(_end, header.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise Refusal(f"{damaged}, and its header is not readable. Download it again.", "model-damaged") from None
    if size != 8 + length + end:
        problem = f"{damaged}, but its header needs {8 + length + end}"
        raise Refusal(f"{problem}. It was cut off: download it again.", "model-damaged")
    return dict(header)


def _end(entry: dict[str, Any]) -> int:
    """Where the data of a tensor ends. An invalid `entry` raises an error."""
    begin, end = entry["data_offsets"]
    numbers = [begin, end, *entry["shape"]]
    if not isinstance(entry["dtype"], str) or not all(
        type(number) is int and 0 <= number < _LARGEST for number in numbers
    ):
        raise TypeError
    if begin > end or len(numbers) > 64 or math.prod(entry["shape"]) >= _LARGEST:
        raise ValueError
    return int(end)


def _digests(paths: list[Path]) -> list[str]:
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_sha256, paths))


def _remembered_digests(paths: list[Path]) -> list[str]:
    try:
        known = dict(json.loads(_CACHE.read_text()))
    except (OSError, ValueError, TypeError, RecursionError):
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
