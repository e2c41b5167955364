"""The documentation agrees with the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from zorac_deploy import content, errors
from zorac_deploy.engine_settings import SETTINGS

_ROOT = content.root()
_ROLES = sorted((_ROOT / "roles").iterdir())


def test_the_reference_is_up_to_date():
    done = subprocess.run(
        [sys.executable, _ROOT / "scripts/reference", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_refusal_of_a_role_has_an_exit_code_and_every_code_a_refusal():
    tasks = "".join(path.read_text() for path in (_ROOT / "roles").rglob("tasks/*.yml"))
    used = set(re.findall(r"^ +refuse:\n +id: ([a-z-]+)$", tasks, re.MULTILINE))
    folders = [_ROOT / name for name in ("zorac_deploy", "zorac_host", "plugins", "roles")]
    modules = [path for folder in folders for path in folder.rglob("*.py") if path.name != "errors.py"]
    ours = "".join(path.read_text() for path in modules)
    used |= {name for name in errors.REFUSALS if f'"{name}"' in ours}
    assert used == set(errors.REFUSALS)


def test_a_role_refuses_by_id_and_no_message_has_one():
    folders = [_ROOT / name for name in ("zorac_deploy", "zorac_host", "plugins", "roles")]
    sources = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".yml", ".py", ".j2")]
    ids = "|".join(errors.REFUSALS)
    assert [path for path in sources if re.search(rf"\[({ids})\] ", path.read_text())] == []


def test_exit_codes_are_distinct():
    codes = [kind.exit_code for kind in errors.REFUSALS.values()]
    kinds = [errors.ZoracDeployError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        if kind is not errors.Refused:
            codes.append(kind.exit_code)
    assert len(codes) == len(set(codes))
    assert all(2 < code < 256 or code == 1 for code in codes)


def test_the_tree_in_the_docstring_is_the_tree():
    kinds = [errors.ZoracDeployError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    told = re.findall(r"^[ │├└─]*(\w+) +(\d+|REFUSALS)  ", errors.__doc__, re.MULTILINE)
    codes = {kind.__name__: "REFUSALS" if kind is errors.Refused else str(kind.exit_code) for kind in kinds}
    assert dict(told) == codes


@pytest.mark.parametrize("role", _ROLES, ids=lambda role: role.name)
def test_defaults_and_specification_agree(role):
    spec = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    source = role / "defaults/main.yml"
    defaults = yaml.safe_load(source.read_text()) if source.is_file() else {}
    assert set(defaults) <= set(spec)
    for name, option in spec.items():
        if "default" in option:
            assert defaults[name] == option["default"], name


@pytest.mark.parametrize("role", _ROLES, ids=lambda role: role.name)
def test_public_variables_begin_with_the_roles_name(role):
    spec = yaml.safe_load((role / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    assert all(name.startswith(f"{role.name}_") for name in spec)


def test_every_setting_of_a_profile_is_used_by_the_wiring_or_a_role():
    groups = _ROOT / "inventory/group_vars"
    wiring = "".join((groups / f"{name}.yml").read_text() for name in ("gpu_servers", "nvidia_cards"))
    specs = " ".join((role / "meta/argument_specs.yml").read_text() for role in _ROLES)
    specs += " ".join(setting.variable for setting in SETTINGS)
    for profile in ("headless", "display", "nvidia_cards", "cpu"):
        for name in yaml.safe_load((_ROOT / f"inventory/group_vars/{profile}.yml").read_text()):
            assert re.search(rf"\b{name}\b", wiring + specs), f"{profile}: {name}"


def test_the_engines_of_the_profiles_have_locks():
    for group in ("nvidia_cards", "cpu"):
        settings = yaml.safe_load((_ROOT / f"inventory/group_vars/{group}.yml").read_text())
        for lock in (settings["vllm_engine_lock"], settings["llama_cpp_engine_lock"]):
            assert (_ROOT / f"roles/engine/files/locks/{lock}.txt").is_file()
            assert lock in yaml.safe_load((_ROOT / "roles/engine/vars/main.yml").read_text())["__engine_locks"]


def test_llama_cpp_is_the_version_that_its_locks_are_named_for():
    source = yaml.safe_load((_ROOT / "roles/llama_cpp/vars/main.yml").read_text())["__llama_cpp_source"]
    version = re.match(r"llama-cpp-python==([\d.]+) --hash=sha256:[0-9a-f]{64}$", source)[1]
    locks = [path.stem for path in (_ROOT / "roles/engine/files/locks").glob("llama-cpp-*.txt")]
    assert {lock.rpartition("-")[2] for lock in locks} == {version}


@pytest.mark.parametrize("engine", ["cuda-0.26.0", "llama-cpp-cuda-0.3.36"])
def test_the_compiler_of_an_engine_has_the_version_of_its_headers(engine):
    lock = (_ROOT / f"roles/engine/files/locks/{engine}.txt").read_text()
    names = ("nvidia-cuda-runtime", "nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-cccl")
    versions = {name: re.search(rf"^{name}==(\d+\.\d+)", lock, re.MULTILINE)[1] for name in names}
    assert len(set(versions.values())) == 1, versions


def test_links_in_the_documents_are_valid():
    for page in [*_ROOT.glob("*.md"), *_ROOT.glob("docs/**/*.md"), *_ROOT.glob("roles/*/README.md")]:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page}: {link}"


def test_ruff_checks_every_file_that_is_python():
    listed = subprocess.run(["git", "ls-files"], cwd=_ROOT, capture_output=True, text=True, check=True).stdout.split()
    python = {name for name in listed if (_ROOT / name).is_file() and _is_python(_ROOT / name)}
    done = subprocess.run(["ruff", "check", "--show-files", "."], cwd=_ROOT, capture_output=True, text=True, check=True)
    assert python - {str(Path(path).relative_to(_ROOT)) for path in done.stdout.splitlines()} == set()


def _is_python(path):
    with path.open("rb") as file:
        first = file.readline(100)
    return path.suffix == ".py" or (first.startswith(b"#!") and b"python" in first)


def test_the_playbooks_run_without_the_cli(tmp_path):
    hosts = tmp_path / "hosts.yml"
    hosts.write_text("cpu: {hosts: {tower: {ansible_connection: local, model_weights_source: /no/such}}}\n")
    command = ["ansible-playbook", "--inventory", "inventory/profiles.yml", "--inventory", hosts, "playbooks/up.yml"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    done = subprocess.run(
        [*command, "--list-tasks"], cwd=_ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Require that the engine's memory fits" in done.stdout
