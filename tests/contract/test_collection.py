"""The roles, plugins and playbooks are an Ansible collection, too."""

import os
import subprocess

import yaml

from zorac_deploy import __version__, content


def test_it_builds_installs_and_finds_all_that_its_playbooks_name(tmp_path):
    def ran(*command):
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        settings = {"ANSIBLE_COLLECTIONS_PATH": str(tmp_path)}
        done = subprocess.run(command, cwd=tmp_path, env=kept | settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    ran("ansible-galaxy", "collection", "build", str(content.root()), "--output-path", str(tmp_path))
    (archive,) = tmp_path.glob("zorac-deploy-*.tar.gz")
    ran("ansible-galaxy", "collection", "install", "--offline", str(archive))
    names = {path.name for path in (tmp_path / "ansible_collections/zorac/deploy").iterdir()}
    assert names & {"zorac_deploy", "tests", ".venv", ".git"} == set()
    for playbook in (content.root() / "playbooks").glob("*.yml"):
        listed = ran("ansible-playbook", f"zorac.deploy.{playbook.stem}", "--list-tasks", "--inventory", "host,")
        assert "TAGS" in listed


def test_it_has_the_version_of_the_package():
    assert yaml.safe_load((content.root() / "galaxy.yml").read_text())["version"] == __version__
