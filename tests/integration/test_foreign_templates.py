"""Values from the command line, a bundle, a hub or a host are data: Ansible renders no template in them."""

import json
import os
import random
import subprocess
import sysconfig
from pathlib import Path

import pytest
import yaml

from tests.conftest import safetensors
from tests.unit.bundles import bundle
from zorac_deploy import content, inventory
from zorac_deploy.bundle import about
from zorac_deploy.cli.common import HostOptions, session

# Each runs a command if it is rendered as a template, or breaks the file that it is written into.
TEMPLATES = (
    "{{ lookup('pipe', 'touch canary') }}",
    "{{ query('pipe', 'touch canary') }}",
    "{% set x = lookup('pipe', 'touch canary') %}",
    "{% raw %}{# #}{% endraw %}",
    "{#",
    "{{",
    "!unsafe '{{ 1 }}'",
    "!vault |",
    "'\"`$(touch canary)`\"'",
    "a\n{{ lookup('pipe', 'touch canary') }}\n",
    "- a: {b: c}\n# {{ 1 }}",
    " @x:%\t",
    "\x1b[31m\u202e\x85\u2028é",
)

PLAY = [
    {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"name": "Check the model", "import_role": {"name": "model_weights", "tasks_from": "preflight"}},
            {"name": "Describe vLLM", "import_role": {"name": "vllm_service"}},
            {
                "name": "Keep what a role made of a value, and use it once more",
                "set_fact": {"again": "{{ {'name': model_weights_name} | combine({'path': model_weights_path}) }}"},
            },
            {
                "name": "Write what came of it",
                "copy": {"dest": "result.json", "content": "{{ again | combine(more) | to_json }}"},
                "vars": {"more": {"config": "{{ vllm_service_program.files['vllm.yaml'] }}", "said": "{{ said }}"}},
            },
        ],
    }
]


def ansible(program, *words, **environment):
    """The output of an Ansible program, in this test's own directory."""
    command = [str(Path(sysconfig.get_path("scripts")) / program), *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """This test's own directory, where a rendered template creates a file."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.rglob("canary"))


def model(folder, name):
    """A directory with a complete model, called `name`."""
    made = folder / name
    made.mkdir()
    (made / "config.json").write_text('{"model_type": "llama"}')
    (made / "tokenizer.json").write_text("{}")
    (made / "model.safetensors").write_bytes(safetensors())
    return made


def test_the_roles_render_no_template_in_a_models_name(folder):
    name = "".join(text for text in TEMPLATES if "/" not in text)[:120]
    (folder / "play.yml").write_text(yaml.safe_dump(PLAY))
    variables = {"model_weights_source": str(model(folder, name)), "said": list(TEMPLATES)}
    variables |= {"engine_path": "/nowhere", "vllm_gpu_memory_utilization": 0.5, "vllm_max_num_seqs": 1}
    variables |= {"engine_service_max_model_len": 512}
    with session(HostOptions(None, (), "localhost", "cpu", False), variables) as opened:
        sources = [word for source in opened.inventory.sources for word in ("--inventory", source)]
        ansible("ansible-playbook", *sources, "--diff", "play.yml", ANSIBLE_CONFIG=str(content.ansible_config()))
    found = json.loads((folder / "result.json").read_text())
    assert found["name"] == name
    assert found["path"].startswith(f"/var/lib/zorac-deploy/models/{name}-")
    assert yaml.safe_load(found["config"])["served-model-name"] == name
    assert found["said"] == list(TEMPLATES)


@pytest.mark.usefixtures("folder")
def test_any_text_is_unchanged_by_inventory_switch_and_extra_variables():
    chance = random.Random(7)  # noqa: S311 - the same values every time
    pieces = [*TEMPLATES, *("{{", "}}", "{%", "%}", "{#", "#}", "!unsafe", "no"), *"\"'\\\n :#0é"]
    values = [*TEMPLATES, *("".join(chance.choices(pieces, k=chance.randint(1, 6))) for _ in range(300))]
    given = {"all": {"hosts": {"box": {"said": values, "nested": {"a": [{"b": values[0]}]}}}}}
    Path("box.yml").write_text("cpu: {hosts: {box: {ansible_connection: local, mine: '{{ 6 * 7 }}'}}}\n")
    Path("given.yml").write_text(inventory.as_data(given), encoding="utf-8")
    switched = inventory.switched(inventory.read([Path("box.yml"), Path("given.yml")]), "box", "headless")
    Path("switched.yml").write_text(switched, encoding="utf-8")
    play = [{"hosts": "all", "gather_facts": False, "tasks": [{"copy": {"dest": "result.json", "content": None}}]}]
    play[0]["tasks"][0]["copy"]["content"] = "{{ [said, nested, extra, mine] | to_json }}"
    Path("play.yml").write_text(yaml.safe_dump(play))
    ansible("ansible-playbook", "-i", "switched.yml", "play.yml", "--extra-vars", inventory.as_data({"extra": values}))
    assert json.loads(Path("result.json").read_text()) == [values, {"a": [{"b": values[0]}]}, values, 42]


@pytest.mark.parametrize(
    "address",
    [
        "{{lookup('pipe','id')}}@box",
        "me@{{x}}",
        "me@box{#",
        "me@@/etc/passwd",
        "me@~regex",
        "me@all!x",
        "me@a,b",
        "me@web[1",
        "-oProxyCommand=x@box",
        "@box",
        "me@box;id",
        "me@bo\x1bx",
        "$(id)@box",
        "me@*",
        "me@box:٢",
    ],
)
def test_an_address_that_is_a_pattern_a_template_or_an_option_is_refused(address):
    with pytest.raises(inventory.InventoryError, match="is not a host"):
        inventory.one_host(address, "cpu")


@pytest.mark.parametrize("address", ["me@fd00::1", "me@fe80::1%eth0", "CORP\\me@box", "me@corp.example@box.lan:22"])
def test_a_usual_address_is_accepted(address):
    assert address.rpartition("@")[2].removesuffix(":22") in inventory.one_host(address, "cpu")


@pytest.mark.parametrize("name", [*TEMPLATES, "", "..", ".", ".hidden", "-x", "a/b", "a\x00b", "a\n"])
def test_a_bundled_models_unusual_name_is_refused(name):
    with pytest.raises(ValueError, match="name"):
        about.Model(name=name, source="/m", digest="0" * 64, format="gguf")


@pytest.mark.parametrize("name", ["Qwen3-8B-Q4_K_M.gguf", "Mistral Small 3.1+x", "模型"])
def test_a_usual_model_name_is_accepted(name):
    assert about.Model(name=name, source="/m", digest="0" * 64, format="gguf").name == name


@pytest.mark.parametrize("name", ["-oAPT::Update=x", "a b", "{{ x }}", "A", "a/b", ""])
def test_an_invalid_package_name_is_refused(folder, name):
    with pytest.raises(ValueError, match=r"packages\.0"):
        bundle(folder / "bundle", packages=[name])
