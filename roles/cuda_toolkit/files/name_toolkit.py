"""Find the CUDA compiler among the packages of this Python's environment, prove that it compiles, and link to it.

Usage, with the engine's own Python: ``name_toolkit.py LINK COMPUTE…``. LINK then leads to the folder for CUDA_HOME.
"""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

# With a header of the runtime and one of the C++ library: kernels that are compiled while the engine runs use both.
_KERNEL = """
#include <cuda_runtime.h>
#include <cuda/std/array>
__global__ void twice(float *values) { values[threadIdx.x] *= 2; }
"""


def toolkit() -> Path:
    """The folder with ``bin/nvcc``, as NVIDIA's packages for CUDA 13 lay it out."""
    package = importlib.util.find_spec("nvidia")
    for place in package.submodule_search_locations if package and package.submodule_search_locations else ():
        for compiler in Path(place).glob("cu*/bin/nvcc"):
            return compiler.parents[1]
    sys.exit("the engine's environment has no package with nvcc. Add nvidia-cuda-nvcc to its lock")


def compile_kernel(home: Path, compute: str) -> None:
    """Compile a kernel for `compute`, as in ``8.9``, or end with what the compiler said."""
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "kernel.cu"
        source.write_text(_KERNEL)
        include = home / "include" / "cccl"
        command = [home / "bin/nvcc", f"-arch=sm_{compute.replace('.', '')}", f"-I{include}", "-cubin", "kernel.cu"]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{home}/bin/nvcc cannot compile for compute capability {compute}: {done.stderr.strip()[-800:]}")


def main() -> None:
    """Find, prove, link."""
    link, *computes = sys.argv[1:]
    home = toolkit()
    for compute in computes:
        compile_kernel(home, compute)
    Path(link).symlink_to(home)
    print(home)


if __name__ == "__main__":
    main()
