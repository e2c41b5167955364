import pytest

from zorac_deploy import inventory, profiles
from zorac_deploy.errors import Refused


def test_our_own_profiles_have_valid_settings(tmp_path):
    source = tmp_path / "inventory.yml"
    source.write_text("headless: {hosts: {a: }}\ndisplay: {hosts: {b: }}\ncpu: {hosts: {c: }}\n")
    assert set(inventory.read([source]).targets) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("vllm_max_model_length", 4096, "Did you mean vllm_max_model_len?"),
        ("vllm_service_extra_flag", {}, "Did you mean vllm_service_extra_flags?"),
        ("headless_host_desktp", "kept", "Did you mean headless_host_desktop?"),
        ("vllm_max_model_len", "all", "vllm_max_model_len of tower is 'all'"),
        ("vllm_max_model_len", 0, "vllm_max_model_len of tower is 0"),
        ("vllm_gpu_memory_utilization", 92, "less than or equal to 1"),
        ("vllm_gpu_memory_utilization", 0, "greater than 0"),
        ("vllm_port", "8000", "vllm_port of tower is '8000'"),
        ("vllm_enforce_eager", "yes please", "boolean"),
        ("vllm_kv_cache_dtype", "int4", "'fp8'"),
        ("model_server", "ollama", "'llama_cpp'"),
        ("model_sever", "vllm", "Did you mean model_server?"),
    ],
)
def test_an_invalid_setting_is_named_with_a_suggestion(name, value, says):
    with pytest.raises(Refused) as refused:
        profiles.check("tower", {name: value})
    assert refused.value.refusal == "settings-invalid"
    assert says in str(refused.value)
    assert name in str(refused.value)


@pytest.mark.parametrize(
    "variables",
    [
        {"vllm_max_model_len": "auto", "vllm_gpu_memory_utilization": 1},
        {"vllm_port": "{{ 8000 + rack }}"},
        {"engine_service_api_key": {"__ansible_vault": "$ANSIBLE_VAULT;1.1;AES256\n31"}},
        {"vllm_environment": {"OMP_NUM_THREADS": 4, "HOME": "/srv"}},
        {"vllm_service_extra_flags": {"swap_space": 8}},
        {"rack": 7, "my_vllm": "whatever"},
    ],
)
def test_a_valid_setting_passes(variables):
    profiles.check("tower", variables)


def test_a_users_own_profile_is_checked(tmp_path):
    source = tmp_path / "inventory.yml"
    source.write_text("headless: {children: {night: }}\nnight: {hosts: {tower: }}\n")
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "group_vars" / "night.yml").write_text("vllm_max_num_seqs: none\n")
    with pytest.raises(Refused, match="vllm_max_num_seqs of tower is 'none'"):
        inventory.read([source])
