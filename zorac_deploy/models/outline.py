"""The metadata of a remote model, as a local directory that takes little space.

Small files are downloaded. A file of weights has its true size and its own header, and is otherwise sparse: that is
enough to check and plan the model, from model_manifest.py to the planner.
"""

import json
import shutil
import struct
from pathlib import Path

from zorac_deploy.errors import Refused
from zorac_deploy.models.remote import File, Listing, explained, read

RECORD = ".zorac-deploy.json"
_WEIGHTS = (".safetensors", ".gguf", ".bin", ".pt", ".pth", ".ckpt")
# Enough for the settings and the vocabulary at the start of a GGUF file. Its header does not give their length.
_GGUF_START = 16 * 2**20
_FIRST_READ = 2**16
_LONGEST_HEADER = 100 * 2**20  # the limit of the safetensors format


def make(listing: Listing, folder: Path) -> None:
    """Create the metadata of the listed files in `folder`, complete or not at all, with a record of it beside.

    Raises:
        Refused: A file cannot be read, or differs from the listing.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    files = {}
    for file in listing.files:
        path = partial / file.name
        if not path.resolve().is_relative_to(partial.resolve()):
            raise Refused(
                f"{listing.source} names a file outside its directory: {file.name}. Use another model.", "model-unsafe"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        with explained(listing.source):
            known = _write(file, path, listing)
        files[file.name] = {"size": known.size, "sha256": known.sha256, "url": known.url}
    (partial / RECORD).write_text(json.dumps({"source": listing.source, "files": files}))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _write(file: File, path: Path, listing: Listing) -> File:
    if not file.name.endswith(_WEIGHTS):
        content = read(file.url, listing.token)
        path.write_bytes(content)
        return file.checked(content, listing.source)
    if not file.sha256:  # too small to be an LFS file
        file = file.checked(read(file.url, listing.token), listing.source)
    with path.open("wb") as made:
        made.write(_start(file, listing.token))
        made.truncate(file.size)
    return file


def _start(file: File, token: str | None) -> bytes:
    """The first bytes of a file of weights: its header."""
    if file.name.endswith(".gguf"):
        return read(file.url, token, 0, min(file.size, _GGUF_START) - 1)
    if not file.name.endswith(".safetensors"):
        return b""
    start = read(file.url, token, 0, min(file.size, _FIRST_READ) - 1)
    length = 8 + struct.unpack("<Q", start[:8])[0] if len(start) >= 8 else 0
    if len(start) < length <= min(file.size, _LONGEST_HEADER):
        start += read(file.url, token, len(start), length - 1)
    return start[:length]
