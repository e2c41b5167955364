"""Turn the GGUF file of an installed Python package into a Hugging Face folder.

Run by ``zorac_deploy.sandbox.model`` in an environment of its own that holds torch, transformers and gguf.
Usage: ``convert_gguf.py PACKAGE OUTPUT``.
"""

import sys
from importlib.metadata import files
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def convert(package: str, output: Path) -> None:
    """Write the GGUF file of the distribution `package` to `output` as bfloat16 safetensors with its tokenizer."""
    # Looked up by metadata: importing the package would pull in a whole command-line tool.
    gguf = next(Path(str(entry.locate())) for entry in files(package) or () if entry.suffix == ".gguf")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # A chat turn ends with <|im_end|>; read from GGUF the tokenizer stops at nothing.
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"})

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # The weights are plain bfloat16 by now; transformers refuses to save while these marks say otherwise.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    for mark in ("hf_quantizer", "quantization_method", "is_quantized"):
        if mark in vars(model):
            delattr(model, mark)
    for config in (model.config, model.generation_config):
        config.eos_token_id = config.pad_token_id = tokenizer.eos_token_id
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


if __name__ == "__main__":
    convert(sys.argv[1], Path(sys.argv[2]))
