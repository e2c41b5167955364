"""Logs of engine starts, from the directory logs, and their parsed values."""

from pathlib import Path

_FOLDER = Path(__file__).parent / "logs"


def logged(name):
    """A journal."""
    return (_FOLDER / f"{name}.txt").read_text()


H100 = logged("0.26.0-h100")
FORCED = logged("0.9-forced")

READ = {
    "0.26.0-h100": {
        "weights_gib": 13.58,
        "activation_gib": 1.77,
        "non_torch_gib": 0.22,
        "graphs_gib": 0.13,
        "kv_gib": 6.12,
        "kv_tokens": 80240,
        "max_concurrency": 2.45,
        "max_model_len": 32768,
        "kernels": ["MacheteLinearKernel"],
        "attention_backend": "TRITON_ATTN",
        "quantization": "compressed-tensors",
    },
    "0.32.0-processor": {
        "kv_gib": 1.0,
        "kv_tokens": 46592,
        "max_concurrency": 11.38,
        "max_model_len": 4096,
        "quantization": "none",
    },
    "0.10.1.1-two-workers": {  # one of them loaded more, and has less left
        "weights_gib": 7.1217,
        "graphs_gib": 0.65,
        "kv_gib": 12.02,
        "kv_tokens": 450192,
        "max_concurrency": 27.48,
        "max_model_len": 16384,
        "attention_backend": "Flash Attention",
        "quantization": "none",
    },
    "0.10.1.1-converted": {"kernels": ["awq_marlin"]},
    "0.19.0-w4a16": {
        "weights_gib": 5.38,
        "kv_tokens": 554704,
        "kernels": ["MarlinLinearKernel"],
        "attention_backend": "FLASH_ATTN",
    },
    "0.33.0-awq": {  # weights and memory outside PyTorch as one number
        "weights_gib": 9.37,
        "activation_gib": 1.46,
        "non_torch_gib": 1.85,
        "kv_gib": 9.27,
        "kv_tokens": 60768,
        "max_concurrency": 1.85,
        "max_model_len": 32768,
        "kernels": ["MarlinLinearKernel", "CutlassFP8ScaledMMLinearKernel"],
    },
    "0.9-forced": {"kernels": ["awq"]},
}
