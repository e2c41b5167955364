"""Load the programs in the roles' files, and Ansible's plugins."""

import importlib.util

from zorac_deploy import content


def program(role, name):
    """The module `name` in the role's files."""
    return _loaded(content.root() / "roles" / role / "files" / f"{name}.py")


def plugin(kind, name):
    """The plugin `name` of a kind, such as ``modules``."""
    return _loaded(content.root() / "plugins" / kind / f"{name}.py")


def _loaded(source):
    spec = importlib.util.spec_from_file_location(source.stem, source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
