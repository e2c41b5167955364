"""Render what a role would, as Ansible renders it, without a host."""

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import add_all_plugin_dirs
from ansible.template import Templar, trust_as_template

from zorac_deploy import content


def render(role, expression, **variables):
    """What `expression` is in `role`, with the role's defaults and vars, and `variables` above them."""
    folder = content.root() / "roles" / role
    add_all_plugin_dirs(str(folder))
    known = {"ansible_managed": "Ansible managed"}
    for source in ("defaults/main.yml", "vars/main.yml"):
        if (folder / source).is_file():
            known |= _trusted(yaml.safe_load((folder / source).read_text()))
    return Templar(loader=DataLoader(), variables=known | variables).template(trust_as_template(expression))


def render_file(role, template, **variables):
    """The text of the file that the template of `role` makes."""
    return render(role, (content.root() / "roles" / role / "templates" / template).read_text(), **variables)


def _trusted(value):
    if isinstance(value, dict):
        return {key: _trusted(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_trusted(each) for each in value]
    return trust_as_template(value) if isinstance(value, str) else value
