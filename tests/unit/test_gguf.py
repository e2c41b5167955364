"""planner/gguf.py: what a GGUF file says of its model, and what is no such file."""

import random

import pytest

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


def test_one_byte_less_is_cut_off(tmp_path):
    whole = gguf_files.file(tmp_path / "m.gguf", gguf_files.llama())
    gguf.read([whole])
    cut = gguf_files.file(tmp_path / "cut.gguf", gguf_files.llama(), size=whole.stat().st_size - 1)
    with pytest.raises(Refused, match="It was cut off") as refused:
        gguf.read([cut])
    assert refused.value.refusal == "model-damaged"


def test_whatever_is_in_a_file_it_is_read_or_refused(tmp_path):
    chance, path = random.Random(6), tmp_path / "m.gguf"
    whole = gguf_files.header(gguf_files.llama() | {"t": ["a", "b"], "n": [1]}, [("w", (256, 2), 12, 0)])
    refusals = 0
    for _ in range(2000):
        spoilt = bytearray(whole[: chance.randrange(len(whole) + 1)] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(4)):
            if spoilt:
                spoilt[chance.randrange(len(spoilt))] = chance.randrange(256)
        path.write_bytes(spoilt + bytes(400))
        try:
            gguf.read([path])
        except Refused as refused:
            assert refused.refusal == "model-damaged"
            refusals += 1
    assert 500 < refusals < 2000
