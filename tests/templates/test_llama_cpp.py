"""The llama_cpp role's arguments for llama-server and its build, rendered by Ansible without a host."""

from tests.templates.render import render

_PATH = "/opt/engines/llama-cpp-0.3.36"


def words(**flags):
    return render("llama_cpp", "{{ flags | flag_words }}", flags=flags)


def test_flags_have_dashes_in_the_order_of_their_names():
    found = words(model="/m/a b.gguf", ctx_size=4096, jinja=True)
    assert found == ["--ctx-size", "4096", "--jinja", "--model", "/m/a b.gguf"]


def test_null_and_false_are_omitted():
    assert words(ctx_size=None, jinja=False, n_gpu_layers=0) == ["--n-gpu-layers", "0"]


def test_a_mapping_is_json():
    assert words(kwargs={"a": "ä", "b": [1, None]}) == ["--kwargs", '{"a": "ä", "b": [1, null]}']
    assert words(kwargs='{"a":1}') == ["--kwargs", '{"a":1}']


def settings(compute):
    known = {"llama_cpp_compute": compute, "llama_cpp_engine_path": _PATH, "__llama_cpp_processor": {"stdout": "avx2"}}
    return render("llama_cpp", "{{ __llama_cpp_settings }}", **known)


def test_a_gpu_needs_cuda_and_a_cpu_does_not():
    assert not any("CUDA" in each for each in settings([]))
    cuda = settings(["9.0", "8.9", "9.0"])
    assert "cmake.define.CMAKE_CUDA_ARCHITECTURES=89;90" in cuda
    assert f"cmake.define.CMAKE_INSTALL_RPATH={_PATH}/cuda/lib" in cuda


def test_the_build_downloads_nothing():
    assert {"cmake.define.LLAMA_USE_PREBUILT_UI=OFF", "cmake.define.LLAMA_OPENSSL=OFF"} <= set(settings([]))


def test_kernels_that_crash_are_not_built():
    flags = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    assert {f"cmake.define.CMAKE_C_FLAGS={flags}", f"cmake.define.CMAKE_CXX_FLAGS={flags}"} <= set(settings([]))
