import os

import pytest

from zorac_deploy import inputs

SHIPPED = {"vllm_port": 8000, "engine_path": "{{ lookup('file', 'x') }}"}


def digest(variables=None, **extra):
    return inputs.inputs({**SHIPPED, **(variables or {})}, [SHIPPED], extra).digest


def test_equal_inputs_have_equal_digests():
    assert digest({"vllm_port": 8001}) == digest({"vllm_port": 8001}) != ""


def test_the_connection_does_not_count():
    assert digest({"ansible_host": "192.0.2.1", "ansible_port": 22}) == digest()


@pytest.mark.parametrize(
    "variables", [{"vllm_port": 8001}, {"vllm_environment": {"A": "1"}}, {"mine": [1, "{{ other }}"]}]
)
def test_a_variable_counts(variables):
    assert digest(variables) != digest()


@pytest.mark.parametrize(
    "value",
    [
        "{{ lookup('env', 'PORT') }}",
        "{{ query('file', '/etc/x') | first }}",
        "{{ now() }}",
        "{{ 5 | random }}",
        "{{ ansible_facts.memtotal_mb }}",
        "{{ ansible_memtotal_mb // 2 }}",
        "{{ hostvars['other'].vllm_port }}",
        {"nested": ["{{ lookup('password', '/tmp/x') }}"]},
    ],
)
def test_an_impure_variable_gives_no_digest(value):
    found = inputs.inputs({**SHIPPED, "mine": value}, [SHIPPED], {})
    assert found.digest == ""
    assert found.impure[0].startswith("mine uses ")


def test_a_template_of_other_variables_is_pure():
    assert digest({"mine": "{{ vllm_port + 1 }}"})


def test_our_own_profiles_may_be_impure():
    assert digest()


def test_a_file_named_by_a_variable_counts(tmp_path):
    lock = tmp_path / "lock.txt"
    lock.write_text("a")
    before = digest({"mine": str(lock)})
    assert digest({"mine": str(lock)}) == before
    lock.write_text("b")
    assert digest({"mine": str(lock)}) != before


def test_a_changed_file_with_the_same_size_and_date_counts(tmp_path):
    key = tmp_path / "key"
    key.write_text("a")
    before, seen = digest({"mine": str(key)}), key.stat()
    key.write_text("b")
    os.utime(key, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert digest({"mine": str(key)}) != before


def test_every_file_of_the_model_counts(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/weights").write_text("a")
    before = digest({"model_weights_source": str(tmp_path)})
    (tmp_path / "sub/weights").write_text("ab")
    assert digest({"model_weights_source": str(tmp_path)}) != before


def test_a_path_relative_to_the_current_directory_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = digest({"model_weights_source": "model"})
    (tmp_path / "model").mkdir()
    assert digest({"model_weights_source": "model"}) != before


@pytest.mark.parametrize("name", ["HF_ENDPOINT", "HF_TOKEN", "https_proxy", "NO_PROXY", "ANSIBLE_VAULT_PASSWORD_FILE"])
def test_the_environment_that_roles_read_counts(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    before = digest()
    monkeypatch.setenv(name, "x")
    assert digest() != before


def test_a_pinned_commit_counts():
    assert digest(pinned="a") != digest(pinned="b")


def test_every_file_of_this_program_counts(tmp_path, monkeypatch):
    for folder in inputs._CONTENT:
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(inputs.content, "root", lambda: tmp_path)
    seen = {digest()}
    for folder in inputs._CONTENT:
        (tmp_path / folder / "file.yml").write_text("x")
        seen.add(digest())
        (tmp_path / folder / "file.yml").chmod(0o755)
        seen.add(digest())
    assert len(seen) == 1 + 2 * len(inputs._CONTENT)
