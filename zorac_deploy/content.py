"""The directory of playbooks, roles, inventory and templates: in the wheel or in the checkout."""

from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The directory that holds ``playbooks/``, ``roles/``, ``inventory/`` and ``templates/``."""
    shipped = _PACKAGE / "_content"
    return shipped if shipped.is_dir() else _PACKAGE.parent


def playbook(name: str) -> Path:
    """The playbook of the verb `name`, as in ``up``."""
    return root() / "playbooks" / f"{name}.yml"


def ansible_config() -> Path:
    """Ansible's settings for every run; those of the current directory are ignored."""
    return root() / "ansible.cfg"


def role_file(role: str, name: str) -> Path:
    """A file in the role `role`'s ``files/``."""
    return root() / "roles" / role / "files" / name


def profiles() -> Path:
    """The inventory that defines the profiles."""
    return root() / "inventory" / "profiles.yml"


def data(path: Path) -> Any:
    """The content of a YAML file of ours. libyaml, where PyYAML has it, is ten times as fast."""
    import yaml  # here: completion does not need it

    return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe


def render(template: str, **values: object) -> str:
    """Render the template `template` with `values`.

    Raises:
        jinja2.UndefinedError: The template uses a value that is not given.
    """
    import jinja2  # here: it takes 0.03 s, and few commands need it

    environment = jinja2.Environment(  # noqa: S701 - it writes YAML and JSON, never HTML
        loader=jinja2.FileSystemLoader(root() / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
