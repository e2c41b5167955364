"""Bundles of small files, without a download, and the machine that creates them."""

import hashlib
import io
import tarfile

from zorac_deploy.bundle import about, parts

FILES = {
    "wheels/uv-0.13.9-py3-none-any.whl": b"uv",
    "packages/Packages": b"Package: libnuma1\n",
    "model/M/config.json": b"{}",
}


def bundle(folder, files=FILES, part_size=100, listed=None, **changes):
    """A bundle of `files` in `folder`, described with `changes`, and with `listed` as its content."""
    folder.mkdir()
    with parts.Writer(folder, part_size) as writer, tarfile.open(fileobj=writer, mode="w|") as archive:
        for name, data in files.items():
            archive.addfile(parts.entry(name, len(data)), io.BytesIO(data))
    found = [
        about.File(path=name, size=len(data), sha256=hashlib.sha256(data).hexdigest()) for name, data in files.items()
    ]
    description = {
        "system": "debian12",
        "python": "3.11",
        "engine": {"lock": "cpu-0.32.0", "lock_sha256": "0" * 64, "uv": "0.13.9"},
        "model": {"name": "M", "source": "/models/M", "digest": "0" * 64, "format": "safetensors"},
        "packages": ["libnuma1"],
        "absent": [],
        "parts": writer.parts,
        "files": listed or found,
    }
    about.write(folder, about.About.model_validate(description | changes))
    return folder
