"""Convert the GGUF file of an installed Python package to the Hugging Face layout.

``zorac_deploy.sandbox.model`` runs it in an environment with torch, transformers and gguf.
Usage: ``convert_gguf.py PACKAGE OUTPUT``.
"""

import sys
from importlib.metadata import files
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def convert(package: str, output: Path) -> None:
    """Write the GGUF file of the distribution `package` to `output` as bfloat16 safetensors with its tokenizer."""
    # By metadata: importing the package would import a whole command-line tool.
    gguf = next(Path(str(entry.locate())) for entry in files(package) or () if entry.suffix == ".gguf")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    # A chat turn ends with <|im_end|>; the tokenizer from GGUF has no stop token.
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "pad_token": "<|im_end|>"})

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16)
    # The weights are plain bfloat16 now; transformers refuses to save while these attributes say otherwise.
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
