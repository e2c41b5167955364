"""zorac_deploy/models/choose.py: the files of a repository that an engine reads."""

import pytest

from zorac_deploy.errors import Refused
from zorac_deploy.models.choose import needed

# From mistralai/Mistral-Small-24B-Instruct-2501, with fewer parts.
MISTRAL = [
    ".gitattributes",
    "README.md",
    "SYSTEM_PROMPT.txt",
    "config.json",
    "consolidated.safetensors",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
    "params.json",
    "tekken.json",
    "tokenizer.json",
    "tokenizer_config.json",
]
# From meta-llama/Llama-3.1-8B-Instruct.
LLAMA = [
    "LICENSE",
    "USE_POLICY.md",
    "config.json",
    "generation_config.json",
    "model-00001-of-00001.safetensors",
    "model.safetensors.index.json",
    "original/consolidated.00.pth",
    "original/params.json",
    "special_tokens_map.json",
    "tokenizer.json",
]
# From openai-community/gpt2: one model, six formats.
GPT2 = [
    "64.tflite",
    "config.json",
    "flax_model.msgpack",
    "merges.txt",
    "model.safetensors",
    "onnx/decoder_model.onnx",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "rust_model.ot",
    "tf_model.h5",
    "vocab.json",
]
GGUF = ["README.md", "x-Q4_K_M.gguf", "x-Q8_0.gguf"]


def chosen(paths, file="", pickle=False, **config):
    return needed("hf://org/name", paths, file, config, pickle)


def test_one_format_of_the_weights_and_the_other_files_needed():
    left = {".gitattributes", "README.md", "SYSTEM_PROMPT.txt", "consolidated.safetensors"}
    assert set(chosen(MISTRAL)) == set(MISTRAL) - left
    assert set(chosen(LLAMA)) == {path for path in LLAMA if "original" not in path}
    assert set(chosen(GPT2)) == {"config.json", "merges.txt", "model.safetensors", "vocab.json"}


def test_mistrals_own_format_if_there_is_no_other():
    assert chosen(["consolidated.safetensors", "params.json"]) == ["consolidated.safetensors", "params.json"]


def test_programs_only_if_the_config_names_them():
    there = ["config.json", "model.safetensors", "modeling_x.py"]
    assert "modeling_x.py" not in chosen(there)
    assert "modeling_x.py" in chosen(there, auto_map={"AutoModel": "modeling_x.X"})


def test_the_named_gguf_file():
    assert chosen(GGUF, "x-Q8_0.gguf") == ["x-Q8_0.gguf"]
    assert chosen(GGUF[:2]) == ["x-Q4_K_M.gguf"]
    parts = ["Q8/x-00001-of-00002.gguf", "Q8/x-00002-of-00002.gguf", "x-Q4.gguf"]
    assert chosen(parts, parts[0]) == parts[:2]
    assert chosen(parts[:2]) == parts[:2]
    # Beside safetensors only if it is named.
    assert chosen([*GPT2, "x.gguf"]) == chosen(GPT2)
    assert chosen([*GPT2, "x.gguf"], "x.gguf") == ["x.gguf"]


@pytest.mark.parametrize(
    ("paths", "file", "refusal"),
    [
        (GGUF, "", "model-incomplete"),
        (GGUF, "x-Q2.gguf", "model-missing"),
        (["x-00001-of-00002.gguf"], "", "model-incomplete"),
        (["config.json", "pytorch_model.bin"], "", "model-unsafe"),
        (["config.json", "adapter_model.safetensors"], "", "model-incomplete"),
        (["README.md"], "", "model-incomplete"),
        ([], "", "model-incomplete"),
    ],
)
def test_a_repository_without_a_model_is_refused(paths, file, refusal):
    with pytest.raises(Refused) as fault:
        chosen(paths, file)
    assert fault.value.refusal == refusal


def test_pickles_if_they_are_allowed():
    there = ["config.json", "pytorch_model.bin", "training_args.bin", "optimizer.pt", "tokenizer.json"]
    assert chosen(there, pickle=True) == ["config.json", "pytorch_model.bin", "tokenizer.json"]
