"""roles/cuda_toolkit: a toolkit that does not compile is not linked. nvcc is a fake here."""

import importlib.machinery

import pytest

from tests.unit.roles import program

name_toolkit = program("cuda_toolkit", "name_toolkit")


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """An environment with NVIDIA's layout and a fake nvcc that ends with the given exit code."""
    home = tmp_path / "nvidia/cu13"
    (home / "bin").mkdir(parents=True)
    spec = importlib.machinery.ModuleSpec("nvidia", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path / "nvidia")]
    monkeypatch.setattr(name_toolkit.importlib.util, "find_spec", lambda _: spec)

    def nvcc(code):
        calls = tmp_path / "calls"
        (home / "bin/nvcc").write_text(f'#!/bin/sh\necho "$@" >> {calls}\necho g++ is missing >&2\nexit {code}\n')
        (home / "bin/nvcc").chmod(0o755)

    nvcc(0)
    return nvcc


def run(monkeypatch, *words):
    monkeypatch.setattr(name_toolkit.sys, "argv", ["name_toolkit.py", *map(str, words)])
    name_toolkit.main()


@pytest.mark.usefixtures("packages")
def test_a_toolkit_that_compiles_for_every_gpu_is_linked(tmp_path, monkeypatch):
    run(monkeypatch, tmp_path / "cuda", "8.9", "12.0")
    assert (tmp_path / "cuda").resolve() == tmp_path / "nvidia/cu13"
    assert [call.split()[0] for call in (tmp_path / "calls").open()] == ["-arch=sm_89", "-arch=sm_120"]


def test_a_toolkit_that_does_not_compile_is_not_linked_and_the_error_shown(packages, tmp_path, monkeypatch):
    packages(1)
    with pytest.raises(SystemExit, match=r"compute capability 8.9: g\+\+ is missing"):
        run(monkeypatch, tmp_path / "cuda", "8.9")
    assert not (tmp_path / "cuda").is_symlink()


@pytest.mark.usefixtures("packages")
def test_a_missing_nvcc_is_reported(tmp_path, monkeypatch):
    (tmp_path / "nvidia/cu13/bin/nvcc").unlink()
    with pytest.raises(SystemExit, match="nvidia-cuda-nvcc"):
        run(monkeypatch, tmp_path / "cuda", "8.9")
