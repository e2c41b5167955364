"""The roles, plugins and playbooks are also an Ansible collection."""

import os
import subprocess

import pytest
import yaml

from zorac_deploy import __version__, content

_HOSTS = "cpu: {hosts: {tower: {ansible_connection: local, ansible_become: false, model_weights_source: /no/such}}}\n"
_SHOW = """
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug: {var: settings_asked.max_num_seqs}
"""


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """The installed collection, and a way to run a command that finds it, with other variables of the environment."""
    folder = tmp_path_factory.mktemp("collection")

    def ran(*command, code=0, **more):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment = kept | {"ANSIBLE_COLLECTIONS_PATH": str(folder)} | more
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    ran("ansible-galaxy", "collection", "build", str(content.root()), "--output-path", str(folder))
    (archive,) = folder.glob("zorac-deploy-*.tar.gz")
    ran("ansible-galaxy", "collection", "install", "--offline", str(archive))
    (folder / "hosts.yml").write_text(_HOSTS)
    return folder / "ansible_collections/zorac/deploy", ran


def test_the_collection_builds_installs_and_has_all_that_its_playbooks_use(collection):
    root, ran = collection
    assert {path.name for path in root.iterdir()} & {"zorac_deploy", "tests", ".venv", ".git"} == set()
    for playbook in (content.root() / "playbooks").glob("*.yml"):
        assert "TAGS" in ran(
            "ansible-playbook", f"zorac.deploy.{playbook.stem}", "--list-tasks", "--inventory", "host,"
        )


def test_its_settings_find_the_plugins_of_its_inventory(collection):
    root, ran = collection
    (root.parent / "show.yml").write_text(_SHOW)
    words = (
        "--inventory",
        str(root / "inventory/profiles.yml"),
        "--inventory",
        "hosts.yml",
        str(root.parent / "show.yml"),
    )
    said = ran("ansible-playbook", *words, ANSIBLE_CONFIG=str(root / "ansible.cfg"))
    assert '"settings_asked.max_num_seqs": ' in said


@pytest.mark.parametrize("playbook", ["up", "down"])
def test_an_ansible_without_the_package_is_told_what_to_install(collection, playbook):
    root, ran = collection
    (root.parent / "sitecustomize.py").write_text(
        "import sys\n\nclass Absent:\n    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'zorac_deploy':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    words = ("--check", "--inventory", str(root / "inventory/profiles.yml"), "--inventory", "hosts.yml")
    path = {"PYTHONPATH": str(root.parent), "ANSIBLE_CONFIG": str(root / "ansible.cfg")}
    said = ran("ansible-playbook", *words, f"zorac.deploy.{playbook}", code=2, **path)
    assert "Run ansible-playbook from the environment in which zorac-deploy is installed" in said
    assert "changed=0" in said


def test_the_collection_has_the_packages_version():
    assert yaml.safe_load((content.root() / "galaxy.yml").read_text())["version"] == __version__
