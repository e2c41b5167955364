"""zorac-deploy: from a bare Linux box with an NVIDIA GPU to a locked-down vLLM endpoint with one command."""

__version__ = "0.1.0"
