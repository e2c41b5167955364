"""Read the header of a GGUF file: its settings and its tensors' sizes.

The format: ggml-org/ggml, docs/gguf.md. All numbers are little endian.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from zorac_deploy.errors import Refused

# By the number of a tensor's type: values per block, and bytes per block.
_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 36),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    29: (256, 56),
    30: (1, 2),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
    40: (64, 36),
    41: (128, 18),
    42: (64, 18),
}
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32
_LIMIT = 2**24  # no model has more settings, tensors, or characters in a name


@dataclass(frozen=True)
class Gguf:
    """A model in GGUF.

    Attributes:
        settings: Its settings by name; of a list only the length, except for numbers per layer.
        tensors: Bytes of each tensor, by its name.
    """

    settings: Mapping[str, Any]
    tensors: Mapping[str, int]

    def setting(self, name: str, default: Any = None) -> Any:
        """The setting `name` of its architecture."""
        return self.settings.get(f"{self.settings.get('general.architecture')}.{name}", default)


def read(files: Sequence[Path]) -> Gguf:
    """The model in `files`, the parts of one.

    Raises:
        Refused: A file is damaged or truncated.
    """
    settings: dict[str, Any] = {}
    tensors: dict[str, int] = {}
    for path in files:
        try:
            if not path.is_file():  # reading a pipe would block
                raise ValueError("it is not a regular file")
            with path.open("rb") as file:
                of_part = _Reader(file).read()
        except (struct.error, OSError, ValueError, KeyError, OverflowError) as error:
            raise Refused(
                f"{path} is not a readable GGUF file ({error}). Download it again.", "model-damaged"
            ) from None
        size = path.stat().st_size
        if size < of_part.end:
            message = f"{path} has {size} bytes, its header needs {of_part.end}. It was cut off: download it again."
            raise Refused(message, "model-damaged")
        settings = {**of_part.settings, **settings}
        tensors |= of_part.tensors
    return Gguf(settings, tensors)


@dataclass(frozen=True)
class _Part:
    settings: Mapping[str, Any]
    tensors: Mapping[str, int]
    end: int


class _Reader:
    """Reads one file from its beginning."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._kinds: dict[int, Callable[[], Any]] = {_STRING: self._string, _ARRAY: self._array}

    def read(self) -> _Part:
        magic, version, tensor_count, setting_count = self._numbers("<4sIQQ")
        if magic != b"GGUF" or version not in (2, 3) or max(tensor_count, setting_count) > _LIMIT:
            raise ValueError("it does not begin as one of version 2 or 3")
        settings = {self._string(): self._value(self._numbers("<I")[0]) for _ in range(setting_count)}
        tensors, end = {}, 0
        for _ in range(tensor_count):
            name, dimensions = self._string(), self._numbers("<I")[0]
            *shape, kind, offset = self._numbers(f"<{dimensions}QIQ" if dimensions <= 8 else "")
            values, size = _BLOCKS[kind]
            tensors[name] = math.prod(shape) // values * size
            end = max(end, offset + tensors[name])
        alignment = settings.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise ValueError(f"its alignment is {alignment}")
        begin = math.ceil(self._file.tell() / alignment) * alignment
        return _Part(settings, tensors, begin + end)

    def _numbers(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self._file.read(struct.calcsize(form)))

    def _value(self, kind: int) -> Any:
        return self._kinds[kind]() if kind in self._kinds else self._numbers(_SCALARS[kind])[0]

    def _string(self) -> str:
        return self._file.read(self._length()).decode("utf-8", "replace")

    def _length(self) -> int:
        (length,) = self._numbers("<Q")
        if length > _LIMIT:
            raise ValueError(f"a text of {length} bytes")
        return int(length)

    def _array(self) -> Any:
        kind, length = self._numbers("<IQ")
        if length > _LIMIT:
            raise ValueError(f"a list of {length}")
        if kind == _STRING:  # the vocabulary: only its size is needed
            for _ in range(length):
                self._file.seek(self._length(), 1)
            return length
        return list(self._numbers(f"<{length}{_SCALARS[kind][1]}"))
