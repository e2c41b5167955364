"""The launcher of vLLM, with a stub for vLLM."""

import os
import subprocess
import sys
from pathlib import Path

_LAUNCHER = Path(__file__).parents[2] / "roles/vllm_service/files/vllm-serve"
# As vLLM with the start method fork: a child process, and multiprocessing's resource tracker.
_STUB = """
import multiprocessing, os, pathlib
from multiprocessing import resource_tracker

def main():
    child = multiprocessing.get_context("fork").Process(target=multiprocessing.Event().wait)
    child.start()
    resource_tracker.ensure_running()
    processes = (os.getpid(), child.pid, resource_tracker._resource_tracker._pid)
    seen = [pathlib.Path(f"/proc/{pid}/{file}").read_bytes() for pid in processes for file in ("environ", "cmdline")]
    child.kill()
    print(os.environ["VLLM_API_KEY"], sum(b"the-secret" in text for text in seen), len(seen))
"""


def test_the_key_is_in_no_processs_environment_or_arguments(tmp_path):
    package = tmp_path / "vllm/entrypoints/cli"
    package.mkdir(parents=True)
    (package / "main.py").write_text(_STUB)
    (tmp_path / "api-key").write_text("the-secret\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CREDENTIALS_DIRECTORY": str(tmp_path)}
    command = [sys.executable, str(_LAUNCHER), "vllm.yaml"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["the-secret", "0", "6"]
