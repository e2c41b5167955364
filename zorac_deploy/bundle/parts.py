"""A stream of bytes in files of one size: write, read and verify it."""

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, BinaryIO

from zorac_deploy.bundle.about import OnStep, Part, damaged

_CHUNK = 1 << 20


class Writer(io.RawIOBase):
    """Writes a stream into ``part-0001``, ``part-0002`` … of `folder`, each of `size` bytes except the last."""

    def __init__(self, folder: Path, size: int, on_step: OnStep = lambda *_: None) -> None:
        self.parts: list[Part] = []
        self._folder, self._size, self._on_step = folder, size, on_step
        self._file: BinaryIO | None = None

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        """Write all of `data`."""
        left = memoryview(data)
        while left:
            if self._file is None:
                name = f"part-{len(self.parts) + 1:04}"
                self._on_step("write the parts", name)
                self._file, self._digest = (self._folder / name).open("xb"), hashlib.sha256()
            piece = left[: self._size - self._file.tell()]
            self._file.write(piece)
            self._digest.update(piece)
            left = left[len(piece) :]
            if self._file.tell() == self._size:
                self._finish()
        return len(data)

    def close(self) -> None:
        """Finish the last part."""
        self._finish()
        super().close()

    def _finish(self) -> None:
        if self._file is not None:
            name = Path(self._file.name).name
            self._file.flush()
            os.fsync(self._file.fileno())  # the user may unplug a USB drive when the command ends
            self.parts.append(Part(name=name, size=self._file.tell(), sha256=self._digest.hexdigest()))
            self._file.close()
            self._file = None


class Reader(io.RawIOBase):
    """The bytes of `parts`, joined. Reading past the end of a part verifies its digest.

    Raises:
        Refused: While reading: a part is missing, truncated or altered.
    """

    def __init__(self, folder: Path, parts: tuple[Part, ...], on_step: OnStep = lambda *_: None) -> None:
        self._chunks = _chunks(folder, parts, on_step)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """Whether the stream can be read: always."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        """Fill `buffer` with the bytes available; return 0 at the end."""
        self._left = self._left or memoryview(next(self._chunks, b""))
        piece = self._left[: len(buffer)]
        buffer[: len(piece)] = piece
        self._left = self._left[len(piece) :]
        return len(piece)

    def drain(self) -> None:
        """Read to the end."""
        for _ in self._chunks:
            pass


def verify(folder: Path, parts: tuple[Part, ...], on_step: OnStep = lambda *_: None) -> None:
    """Require that every part is present and undamaged.

    Raises:
        Refused: A part is missing or damaged.
    """
    Reader(folder, parts, on_step).drain()


def _chunks(folder: Path, parts: tuple[Part, ...], on_step: OnStep) -> Iterator[bytes]:
    _require_sizes(folder, parts)
    for part in parts:
        on_step("read the parts", part.name)
        digest = hashlib.sha256()
        with (folder / part.name).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                yield chunk
        if digest.hexdigest() != part.sha256:
            raise damaged(f"{folder / part.name} was altered: its SHA-256 differs from bundle.json.")


def _require_sizes(folder: Path, parts: tuple[Part, ...]) -> None:
    """Require the size of every part first: that is fast, and reading all parts is not."""
    sizes = {path.name: path.stat().st_size for path in folder.glob("part-*")}
    missing = [part.name for part in parts if part.name not in sizes]
    if missing:
        raise damaged(f"{folder} lacks {', '.join(missing)} of {len(parts)} parts.")
    for part in parts:
        if sizes[part.name] != part.size:
            raise damaged(f"{folder / part.name} has {sizes[part.name]} bytes, bundle.json lists {part.size}.")


def entry(name: str, size: int) -> tarfile.TarInfo:
    """A file in a tar archive without owner and time: the same content gives the same archive."""
    made = tarfile.TarInfo(name)
    made.size = size
    return made


class Hashed:
    """A file that is read once and hashed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self._file.read(size)
        self._digest.update(data)
        return data

    def hexdigest(self) -> str:
        """The SHA-256 of all that was read so far."""
        return self._digest.hexdigest()
