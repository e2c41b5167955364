"""Render a role's templates with Ansible, without a host."""

import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import add_all_plugin_dirs
from ansible.template import Templar, trust_as_template

from zorac_deploy import content


def render(role, expression, **variables):
    """The value of `expression` in `role`, with the role's defaults and vars, overridden by `variables`."""
    folder = content.root() / "roles" / role
    add_all_plugin_dirs(str(folder))
    known = {"ansible_managed": "Ansible managed"}
    for source in ("defaults/main.yml", "vars/main.yml"):
        if (folder / source).is_file():
            known |= _trusted(yaml.safe_load((folder / source).read_text()))
    return Templar(loader=DataLoader(), variables=known | variables).template(trust_as_template(expression))


def render_file(role, template, **variables):
    """The text of the file from the role's template."""
    return render(role, (content.root() / "roles" / role / "templates" / template).read_text(), **variables)


def _trusted(value):
    if isinstance(value, dict):
        return {key: _trusted(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_trusted(each) for each in value]
    return trust_as_template(value) if isinstance(value, str) else value
