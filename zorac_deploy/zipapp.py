"""The host program as one file: a zip archive of the package `zorac_host` that Python runs."""

import io
import zipfile
import zlib
from functools import cache
from pathlib import Path

import zorac_host

# Runs what `packed` returns, on standard input, from memory, so that no file is left on the host.
LOADER = """\
import os, sys, zlib
archive = os.memfd_create("zorac-host")
with open(archive, "wb", closefd=False) as file: file.write(zlib.decompress(sys.stdin.buffer.read()))
sys.path.insert(0, f"/proc/self/fd/{archive}")
from zorac_host.cli import main
main()
"""
_PACKAGE = Path(zorac_host.__file__).parent
_SHEBANG = b"#!/usr/bin/python3 -I\n"
_MAIN = "from zorac_host.cli import main\n\nmain()\n"
_KINDS = ("*.py", "*.json")
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest time in a zip archive


@cache
def packed() -> bytes:
    """The program compressed for the way to a host: a quarter of its size."""
    return zlib.compress(build())


def build(package: Path = _PACKAGE) -> bytes:
    """Build the program. The same sources give the same bytes on every controller.

    Names are sorted, times are fixed, and nothing is compressed, because compressors differ. It has no byte code, which
    is for one version of Python only, and seldom the host's.
    """
    texts = {f"zorac_host/{path.name}": path.read_bytes() for kind in _KINDS for path in package.glob(kind)}
    texts["__main__.py"] = _MAIN.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(texts):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 3  # Unix, on any controller
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, texts[name])
    return _SHEBANG + buffer.getvalue()
