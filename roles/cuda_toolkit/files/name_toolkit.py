"""Find the CUDA compiler in this Python's environment, test it, and link to it.

Usage, with the engine's own Python: ``name_toolkit.py LINK COMPUTE…``. LINK becomes the path for CUDA_HOME.
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

# It includes a header of the runtime and one of the C++ library: kernels compiled at run time use both.
_KERNEL = """
#include <cuda_runtime.h>
#include <cuda/std/array>
__global__ void twice(float *values) { values[threadIdx.x] *= 2; }
"""


def toolkit() -> Path:
    """The directory with ``bin/nvcc``, in the layout of NVIDIA's packages for CUDA 13."""
    package = importlib.util.find_spec("nvidia")
    for place in package.submodule_search_locations if package and package.submodule_search_locations else ():
        for compiler in Path(place).glob("cu*/bin/nvcc"):
            return compiler.parents[1]
    sys.exit("the engine's environment has no package with nvcc. Add nvidia-cuda-nvcc to its lock")


def compile_kernel(home: Path, compute: str) -> None:
    """Compile a kernel for `compute`, such as ``8.9``, or end with the compiler's error."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "kernel.cu"
        source.write_text(_KERNEL)
        include = home / "include" / "cccl"
        command = [home / "bin/nvcc", f"-arch=sm_{compute.replace('.', '')}", f"-I{include}", "-cubin", "kernel.cu"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{home}/bin/nvcc cannot compile for compute capability {compute}: {done.stderr.strip()[-800:]}")


def main() -> None:
    """Find the compiler, test it, and link to it."""
    link, *computes = sys.argv[1:]
    home = toolkit()
    for compute in computes:
        compile_kernel(home, compute)
    Path(link).symlink_to(home)
    print(home)


if __name__ == "__main__":
    main()
