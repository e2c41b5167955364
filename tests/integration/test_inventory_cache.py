"""When a cached output of ansible-inventory is used, and when none is stored."""

import os
import stat

import pytest

from zorac_deploy import inventory, inventory_cache

ANSWER = {"_meta": {"hostvars": {"box": {"ansible_host": "192.0.2.7", "vllm_max_num_batched_tokens": 2048}}}}
SETTINGS = {"PATH": "/bin", "ANSIBLE_CONFIG": "/some/ansible.cfg"}


@pytest.fixture
def source(tmp_path, monkeypatch):
    """An inventory of a new user; the current directory is another one."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    written(tmp_path / "there" / "group_vars" / "cpu.yml", "vllm_port: 8000\n")
    return written(tmp_path / "there" / "hosts.yml", "cpu:\n  hosts:\n    box:\n")


def written(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class Asked:
    """Counts the calls of ansible-inventory."""

    def __init__(self, source, answer=ANSWER):
        self.source, self.answer, self.times = source, answer, 0

    def __call__(self, *options, environment=SETTINGS):
        before = self.times
        found = inventory_cache.listing([self.source], options, environment, self._ask)
        assert found == self.answer
        return self.times - before

    def _ask(self):
        self.times += 1
        return dict(self.answer)


def stored(source):
    return [path for path in (source.parents[1] / "XDG_CACHE_HOME").rglob("*") if path.is_file()]


def test_the_same_inventory_is_asked_for_once(source):
    asked = Asked(source)
    assert [asked(), asked(), asked()] == [1, 0, 0]


def test_an_answer_is_for_its_owner_only(source):
    Asked(source)()
    (file,) = stored(source)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("there/hosts.yml", "cpu:\n  hosts:\n    bux:\n"),
        ("there/group_vars/cpu.yml", "vllm_port: 8001\n"),
        ("there/group_vars/headless.yml", ""),
        ("there/group_vars/cpu/more.json", "{}"),
        ("there/host_vars/box", "vllm_port: 9\n"),
        ("here/group_vars/all.yml", "vllm_port: 9\n"),
        ("here/host_vars/box/one.yml", "vllm_port: 9\n"),
    ],
)
def test_a_change_invalidates_the_cache(source, tmp_path, path, text):
    asked = Asked(source)
    asked()
    before = source.stat()
    written(tmp_path / path, text)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [asked(), asked()] == [1, 0]


def test_other_inputs_invalidate_the_cache(source, tmp_path, monkeypatch):
    asked = Asked(source)
    assert [asked(), asked("--export"), asked()] == [1, 1, 0]
    asked.source = source.rename(source.with_suffix(".ini"))
    assert asked() == 1
    asked.source = source.with_suffix(".ini").rename(source)
    (tmp_path / "there/group_vars/cpu.yml").rename(tmp_path / "there/group_vars/display.yml")
    assert asked() == 1
    monkeypatch.setattr(inventory_cache, "__version__", "another")
    assert asked() == 1
    monkeypatch.setattr("sys.version", "another")
    assert asked() == 1
    monkeypatch.setattr("zorac_deploy.content.ansible_config", lambda: written(tmp_path / "other.cfg", "[defaults]\n"))
    assert asked() == 1
    monkeypatch.chdir(tmp_path)
    assert asked() == 0


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("there/hosts.yml", "#!/usr/bin/env python3\n"),
        ("there/hosts.yml", "plugin: constructed\n"),
        ("there/hosts.yml", '{"plugin": "constructed"}'),
        ("there/hosts.yml", "cpu: {vars: {x: !vault 'abc'}}\n"),
        ("there/group_vars/all.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n"),
        ("there/host_vars/box/vault.yml", "x: !vault |\n  $ANSIBLE_VAULT;1.1;AES256\n"),
        ("here/group_vars/all.yml", "$ANSIBLE_VAULT;1.1;AES256\n6162\n"),
        ("here/vars_plugins/mine.py", ""),
        ("here/inventory_plugins/mine.py", ""),
        ("HOME/.ansible/plugins/vars/mine.py", ""),
    ],
)
def test_nothing_is_stored_if_more_than_files_decides(source, tmp_path, path, text):
    written(tmp_path / path, text)
    asked = Asked(source)
    assert [asked(), asked()] == [1, 1]
    assert not stored(source)


def test_nothing_is_stored_for_a_program_a_directory_a_pipe_or_a_link_to_a_parent(source, tmp_path):
    (tmp_path / "there/group_vars/loop").symlink_to(tmp_path / "there/group_vars")
    assert Asked(source)() == Asked(source)() == 1
    (tmp_path / "there/group_vars/loop").unlink()
    os.mkfifo(tmp_path / "there/group_vars/pipe")
    assert Asked(source)() == Asked(source)() == 1
    (tmp_path / "there/group_vars/pipe").unlink()
    source.chmod(0o755)
    assert Asked(source)() == Asked(source)() == 1
    assert Asked(source.parent)() == Asked(source.parent)() == 1
    assert not stored(source)


@pytest.mark.parametrize("name", ["ANSIBLE_VAULT_PASSWORD_FILE", "ANSIBLE_INVENTORY_ENABLED", "ANSIBLE_HOME"])
def test_nothing_is_stored_with_a_setting_of_ansible_in_the_environment(source, name):
    asked = Asked(source)
    environment = {**SETTINGS, name: "x"}
    assert [asked(environment=environment), asked(environment=environment)] == [1, 1]
    assert not stored(source)


@pytest.mark.parametrize(
    "variables",
    [
        {"engine_service_api_key": "abc"},
        {"model_weights_hub_token": "{{ lookup('env', 'X') }}"},
        {"ansible_become_password": "abc"},
        {"ansible_become_pass": "abc"},
        {"vllm_environment": {"HF_TOKEN": "abc"}},
        {"list": [{"SECRET": 1}, {"sudo_pw": "x"}]},
        {"words": ["--x", "hf_abcdefghijklmnop"]},
        {"ansible_ssh_common_args": "-o ProxyCommand='sshpass -p abc ssh x'"},
        {"engine_extra_index_urls": ["https://me:abc@index.example/simple"]},
        {"proxy": "http://me@proxy.example:3128"},
        {"key": "-----BEGIN OPENSSH PRIVATE KEY-----"},
    ],
)
def test_nothing_secret_is_stored(source, variables):
    asked = Asked(source, {"_meta": {"hostvars": {"box": variables}}})
    assert [asked(), asked()] == [1, 1]
    assert not stored(source)


def test_an_answer_is_not_stored_if_a_file_changed_meanwhile(source):
    class Changing(Asked):
        def _ask(self):
            self.source.write_text(f"cpu: # {self.times}\n")
            return super()._ask()

    asked = Changing(source)
    assert [asked(), asked()] == [1, 1]
    assert not stored(source)


@pytest.mark.parametrize("text", ["", '{"_meta": {"hostv', "[]", "{}", "null", "\udcff"])
def test_a_damaged_answer_is_asked_for_again(source, text):
    asked = Asked(source)
    asked()
    (file,) = stored(source)
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert [asked(), asked()] == [1, 0]


def test_an_answer_that_others_can_write_is_ignored(source, tmp_path):
    asked = Asked(source)
    asked()
    (file,) = stored(source)
    file.chmod(0o666)
    assert [asked(), asked()] == [1, 0]
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert [asked(), asked()] == [1, 0]


def test_only_the_newest_answers_are_kept(source):
    for number in range(30):
        source.write_text(f"cpu: # {number}\n")
        Asked(source)()
    assert len(stored(source)) == 20
    assert Asked(source)() == 0


def test_an_unwritable_cache_is_ignored(source, tmp_path):
    written(tmp_path / "XDG_CACHE_HOME" / "zorac-deploy", "a file in the way")
    asked = Asked(source)
    assert [asked(), asked()] == [1, 1]


def test_a_stored_answer_equals_ansible_inventorys(source, monkeypatch):
    written(
        source, "cpu:\n  hosts:\n    box: {ansible_host: 192.0.2.7, vllm_profile: '{{ x }}', y: !unsafe '{{ z }}'}\n"
    )
    first = inventory.read([source])
    assert len(stored(source)) == 2  # with our profiles
    monkeypatch.setattr("subprocess.run", None)
    assert inventory.read([source]) == first
    assert first.targets["box"].address == "192.0.2.7"
