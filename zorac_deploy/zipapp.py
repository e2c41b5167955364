"""The host program as one file: a zip archive of the package `zorac_host` that Python runs."""

import io
import zipfile
from pathlib import Path

import zorac_host

# Runs the archive that comes by standard input from memory, so that no file is left on the host.
LOADER = """\
import os, sys
archive = os.memfd_create("zorac-host")
with open(archive, "wb", closefd=False) as file: file.write(sys.stdin.buffer.read())
sys.path.insert(0, f"/proc/self/fd/{archive}")
from zorac_host.cli import main
main()
"""
_PACKAGE = Path(zorac_host.__file__).parent
_SHEBANG = b"#!/usr/bin/python3 -I\n"
_MAIN = "from zorac_host.cli import main\n\nmain()\n"
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip archive knows


def build(package: Path = _PACKAGE) -> bytes:
    """The program. The same sources give the same bytes on every controller.

    Names are sorted, times are fixed, and nothing is compressed, for compressors differ. It holds no byte code, which
    is of one version of Python only, and seldom of the host's.
    """
    texts = {f"zorac_host/{path.name}": path.read_bytes() for path in package.glob("*.py")}
    texts["__main__.py"] = _MAIN.encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(texts):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = 3  # Unix, whatever the controller is
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, texts[name])
    return _SHEBANG + buffer.getvalue()
