"""Load the small programs that roles bring to a host."""

import importlib.util

from zorac_deploy import content


def program(role, name, folder="files"):
    """The module `name` of the role's files, or of its library."""
    source = content.root() / "roles" / role / folder / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, source)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
