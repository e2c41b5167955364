"""Where the playbooks, roles, inventory and templates are: in the wheel or in the checkout."""

from pathlib import Path
from typing import Any

_PACKAGE = Path(__file__).resolve().parent


def root() -> Path:
    """The folder that holds ``playbooks/``, ``roles/``, ``inventory/`` and ``templates/``."""
    shipped = _PACKAGE / "_content"
    return shipped if shipped.is_dir() else _PACKAGE.parent


def playbook(name: str) -> Path:
    """The playbook of the verb `name`, as in ``up``."""
    return root() / "playbooks" / f"{name}.yml"


def ansible_config() -> Path:
    """Ansible's settings for every run, so that those of the current folder do not count."""
    return root() / "ansible.cfg"


def role_file(role: str, name: str) -> Path:
    """A file that the role `role` brings to hosts."""
    return root() / "roles" / role / "files" / name


def profiles() -> Path:
    """The inventory that defines the profiles."""
    return root() / "inventory" / "profiles.yml"


def data(path: Path) -> Any:
    """What a YAML file of ours holds. libyaml, where PyYAML has it, reads it ten times as fast."""
    import yaml  # here, for completion does without it

    return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe


def render(template: str, **values: object) -> str:
    """The text of the file that the template `template` makes of `values`.

    Raises:
        jinja2.UndefinedError: The template asks for a value that is not given.
    """
    import jinja2  # here, for it takes 0.03 s, and few commands write such a file

    environment = jinja2.Environment(  # noqa: S701 - it writes YAML and JSON, never HTML
        loader=jinja2.FileSystemLoader(root() / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
