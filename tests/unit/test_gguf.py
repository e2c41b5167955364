"""planner/gguf.py: the header of GGUF files, and of other files."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import gguf_files
from zorac_deploy.errors import Refused
from zorac_deploy.planner import gguf


def test_settings_and_sizes_are_read_and_vocabularies_counted(tmp_path):
    settings = gguf_files.llama() | {"tokenizer.ggml.tokens": ["a", "b", "c"], "x": 0.5, "y": True, "z": [1, 2]}
    path = gguf_files.file(tmp_path / "m.gguf", settings)
    found = gguf.read([path])
    assert found.setting("block_count") == 40
    assert (found.settings["tokenizer.ggml.tokens"], found.settings["z"]) == (3, [1, 2])
    assert found.tensors == {"token_embd.weight": 10 * 144}


def test_parts_are_one_model(tmp_path):
    one = gguf_files.file(tmp_path / "1.gguf", gguf_files.llama())
    two = gguf_files.file(tmp_path / "2.gguf", {"split.no": 1}, (("output.weight", (256, 10), 12, 0),))
    assert set(gguf.read([one, two]).tensors) == {"token_embd.weight", "output.weight"}


def test_a_file_one_byte_too_short_is_refused(tmp_path):
    whole = gguf_files.file(tmp_path / "m.gguf", gguf_files.llama())
    gguf.read([whole])
    cut = gguf_files.file(tmp_path / "cut.gguf", gguf_files.llama(), size=whole.stat().st_size - 1)
    with pytest.raises(Refused, match="It was cut off") as refused:
        gguf.read([cut])
    assert refused.value.refusal == "model-damaged"


_WHOLE = gguf_files.header(gguf_files.llama() | {"t": ["a", "b"], "n": [1]}, [("w", (256, 2), 12, 0)])


@given(st.integers(0, len(_WHOLE)), st.lists(st.tuples(st.integers(0, len(_WHOLE) - 1), st.integers(0, 255))))
def test_any_file_is_read_or_refused(tmp_path_factory, length, spoilt):
    content = bytearray(_WHOLE)
    for place, value in spoilt:
        content[place] = value
    path = tmp_path_factory.getbasetemp() / "spoilt.gguf"
    path.write_bytes(content[:length] + bytes(400))
    with contextlib.suppress(Refused):
        gguf.read([path])
