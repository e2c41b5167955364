import json
import struct

import pytest


def safetensors(data_bytes=64, header=None):
    """The bytes of a safetensors file with one tensor of `data_bytes` bytes."""
    header = header or {"weight": {"dtype": "BF16", "shape": [data_bytes // 2], "data_offsets": [0, data_bytes]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(data_bytes)


@pytest.fixture
def model_folder(tmp_path):
    """A complete model directory."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors())
    return folder
