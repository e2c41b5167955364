import json
import os
import subprocess
import sysconfig
from dataclasses import replace
from pathlib import Path

import pytest

from zorac_deploy import inventory
from zorac_deploy.errors import InventoryError, UnknownProfile


def written(tmp_path, text, name="inventory.yml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_the_shipped_profiles():
    assert inventory.shipped_profiles() == ["headless", "display", "cpu"]


def test_a_host_has_its_profile_and_connection(tmp_path):
    source = written(
        tmp_path,
        """
        display:
          hosts:
            tower: {ansible_host: 192.0.2.7, ansible_user: me, ansible_port: 2222, ansible_ssh_common_args: -o A=b}
        """,
    )
    target = inventory.read([source]).target(None)
    assert target == inventory.Target("tower", "display", "192.0.2.7", 2222, "me", None, ("-o", "A=b"))


def test_an_ini_inventory_is_read_too(tmp_path):
    source = written(tmp_path, "[headless]\nrig ansible_host=192.0.2.8\n", "hosts.ini")
    assert inventory.read([source]).target("rig").profile == "headless"


NESTED = "headless: {hosts: {tower: {x: " + "[" * 3000 + "]" * 3000 + "}}}"


@pytest.mark.parametrize("text", ["headless: [", "just words", "- a\n- list\n", "", NESTED, "[" * 3000 + "]" * 3000])
def test_an_invalid_inventory_is_refused(tmp_path, text):
    with pytest.raises(InventoryError, match="inventory"):
        inventory.read([written(tmp_path, text)])


def test_deep_nesting_beside_an_inventory_is_refused(tmp_path):
    (tmp_path / "group_vars").mkdir()
    written(tmp_path / "group_vars", f"x: {'[' * 400}{']' * 400}", "all.yml")
    with pytest.raises(InventoryError, match="inventory"):
        inventory.read([written(tmp_path, "headless:\n  hosts:\n    tower:\n")])


def test_aliases_of_aliases_are_counted_and_not_expanded(tmp_path, monkeypatch):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]" for level in range(1, 7)]
    text = "headless:\n  hosts: {tower: }\n  vars:\n" + "".join(f"    {line}\n" for line in lines)
    monkeypatch.setattr(inventory.subprocess, "run", lambda *_, **__: pytest.fail("Ansible was asked"))
    with pytest.raises(InventoryError, match="Use fewer aliases"):
        inventory.read([written(tmp_path, text)])


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ('ansible_ssh_common_args: "-o \'x"', "ansible_ssh_common_args of tower cannot be read: No closing quotation"),
        ("ansible_host: [1]", r"ansible_host of tower is \[1\]. Set a text"),
    ],
)
def test_an_invalid_connection_variable_is_refused(tmp_path, variables, says):
    with pytest.raises(InventoryError, match=says):
        inventory.read([written(tmp_path, f"headless: {{hosts: {{tower: {{{variables}}}}}}}")])


def test_an_address_without_a_template_is_used(tmp_path):
    source = written(tmp_path, "headless: {hosts: {tower: {ansible_host: !unsafe 192.0.2.7}}}")
    assert inventory.read([source]).target("tower").address == "192.0.2.7"


def test_a_missing_inventory_is_refused(tmp_path):
    with pytest.raises(InventoryError, match="inventory not found"):
        inventory.read([tmp_path / "none.yml"])
    with pytest.raises(InventoryError):
        inventory.read([tmp_path / ("x" * 5000)])


def test_a_pipe_is_refused_instead_of_read_forever(tmp_path):
    os.mkfifo(tmp_path / "inventory.yml")
    with pytest.raises(InventoryError, match="is a pipe or a device"):
        inventory.read([tmp_path / "inventory.yml"])


def test_a_host_without_a_profile_is_refused(tmp_path):
    with pytest.raises(UnknownProfile, match="tower has no profile"):
        inventory.read([written(tmp_path, "turbo:\n  hosts:\n    tower:\n")])


def test_a_host_in_two_profiles_is_refused(tmp_path):
    text = "headless:\n  hosts:\n    tower:\ndisplay:\n  hosts:\n    tower:\n"
    with pytest.raises(InventoryError, match="two profiles"):
        inventory.read([written(tmp_path, text)])


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [("ansible_host: '{{ a }}'", "is a template"), ("ansible_port: ssh", "Set it to a number")],
)
def test_early_variables_cannot_be_templates(tmp_path, variables, complaint):
    text = f"headless:\n  hosts:\n    tower: {{{variables}}}\n"
    with pytest.raises(InventoryError, match=complaint):
        inventory.read([written(tmp_path, text)])


def test_one_of_several_hosts_has_to_be_named(tmp_path):
    found = inventory.read([written(tmp_path, "headless:\n  hosts:\n    one:\n    two:\n")])
    with pytest.raises(InventoryError, match="no host named"):
        found.target(None)
    with pytest.raises(InventoryError, match="no host three"):
        found.target("three")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("me@192.0.2.9", inventory.Target("192.0.2.9", "headless", "192.0.2.9", None, "me")),
        ("me@box:2222", inventory.Target("box", "headless", "box", 2222, "me")),
        ("box", inventory.Target("box", "headless", "box")),
        ("me@127.0.0.1:22", inventory.Target("loopback", "headless", "127.0.0.1", 22, "me")),
        ("me@2001:db8::7", inventory.Target("2001:db8::7", "headless", "2001:db8::7", None, "me")),
        ("me@[2001:db8::7]:2222", inventory.Target("2001:db8::7", "headless", "2001:db8::7", 2222, "me")),
        ("[::1]", inventory.Target("loopback", "headless", "::1")),
        ("localhost", inventory.Target("localhost", "headless", "localhost", local=True)),
    ],
)
def test_one_host_without_an_inventory(tmp_path, address, expected):
    source = written(tmp_path, inventory.one_host(address, "headless"))
    assert inventory.read([source]).target(None) == expected


@pytest.mark.parametrize(
    "address", ["", "me@", "me@box:ssh", "-oProxyCommand=x", "me@box name", "box\n", "[box]:22", "[::1]:x", "[::1]x"]
)
def test_an_invalid_address_is_refused(address):
    with pytest.raises(InventoryError, match="is not a host"):
        inventory.one_host(address, "headless")


def test_an_unknown_profile_is_refused():
    with pytest.raises(UnknownProfile, match="Choose one of: headless, display, cpu"):
        inventory.one_host("me@box", "turbo")


OWN = """
all:
  vars: {site_home: "{{ home }}/engines"}
gpu_servers:
  children:
    mine: {vars: {vllm_max_model_len: 8192}}
cpu:
  children:
    tiny:
headless:
  hosts:
    tower: {ansible_host: 192.0.2.7, vllm_port: 8001, home: "/srv/{{ inventory_hostname }}"}
    rig:
tiny:
  hosts:
    box: {note: null, ports: [1, "2"]}
racked:
  hosts: {tower: , box: }
  vars: {rack: 7}
"""


def switched(tmp_path, host, profile, text=OWN):
    """The inventory before the switch, and the file for the state after it."""
    before = inventory.read([written(tmp_path, text)])
    return before, written(tmp_path, inventory.switched(before, host, profile), "switched.yml")


def run(*words):
    """The output of an Ansible program."""
    program, *rest = words
    command = [str(Path(sysconfig.get_path("scripts")) / program), *map(str, rest)]
    return subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout


def variables(source, host):
    """The variables of a host, from Ansible."""
    return json.loads(run("ansible-inventory", "--inventory", source, "--host", host))


def rendered(source, variable):
    """The values in a task on tower."""
    return run("ansible", "tower", "-i", source, "-c", "local", "-m", "debug", "-a", f"var={variable}")


@pytest.mark.parametrize(("host", "profile"), [("tower", "mine"), ("rig", "tiny"), ("box", "cpu")])
def test_a_switch_moves_the_host_and_leaves_the_others(tmp_path, host, profile):
    before, source = switched(tmp_path, host, profile)
    after = inventory.read([source])
    expected = {**before.targets, host: replace(before.targets[host], profile=profile)}
    assert after.targets == expected
    assert set(after.profiles) == {"headless", "display", "cpu", "mine", "tiny"}


def test_a_switch_uses_the_new_profiles_values_and_the_hosts_own(tmp_path):
    _, source = switched(tmp_path, "tower", "mine")
    tower, rig = variables(source, "tower"), variables(source, "rig")
    assert (tower["vllm_max_model_len"], rig.get("vllm_max_model_len")) == (8192, None)
    assert (tower["vllm_port"], tower["rack"]) == (8001, 7)
    assert "rack" not in rig
    box = variables(source, "box")
    assert (box["note"], box["ports"]) == (None, [1, "2"])


def test_templates_are_preserved(tmp_path):
    _, source = switched(tmp_path, "tower", "display")
    assert '"site_home": "/srv/tower/engines"' in rendered(source, "site_home")


def test_a_switch_to_an_unknown_profile_is_refused_with_the_choices(tmp_path):
    before = inventory.read([written(tmp_path, OWN)])
    with pytest.raises(
        UnknownProfile, match=r"unknown profile turbo. Choose one of: headless, display, cpu, mine, tiny\."
    ):
        inventory.switched(before, "tower", "turbo")


def test_encrypted_values_stay_encrypted_and_readable(tmp_path, monkeypatch):
    monkeypatch.setenv("ANSIBLE_VAULT_PASSWORD_FILE", str(written(tmp_path, "open sesame\n", "password")))
    sealed = run("ansible-vault", "encrypt_string", "s3cret", "--name", "endpoint_key")
    text = "headless:\n  hosts:\n    tower:\n" + "".join(f"      {line}\n" for line in sealed.splitlines())
    _, source = switched(tmp_path, "tower", "display", text)
    assert "s3cret" not in source.read_text()
    assert "endpoint_key: !vault |" in source.read_text()
    assert '"endpoint_key": "s3cret"' in rendered(source, "endpoint_key")


def test_text_that_is_no_template_is_not_rendered(tmp_path):
    text = "headless: {hosts: {tower: {endpoint_key: !unsafe 'a{{ 1 + 1 }}'}}}\n"
    _, source = switched(tmp_path, "tower", "display", text)
    assert '"endpoint_key": "a{{ 1 + 1 }}"' in rendered(source, "endpoint_key")


def test_the_users_value_overrides_ours_in_the_file_too(tmp_path):
    text = """
        headless:
          vars: {vllm_gpu_memory_utilization: 0.5}
          children: {night: }
        gpu_servers:
          children:
            night:
              vars: {vllm_max_num_seqs: 4}
              hosts: {tower: }
        """
    found = inventory.read([written(tmp_path, text)])
    _, hostvars = inventory._ansible_inventory(found.sources)
    assert found.target("tower").profile == "night"
    assert hostvars["tower"]["vllm_gpu_memory_utilization"] == 0.5
    assert hostvars["tower"]["vllm_max_num_seqs"] == 4
    assert hostvars["tower"]["vllm_least_max_model_len"] == 32768  # the default is the profile's
