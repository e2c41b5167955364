"""Model sources, and the files of a model, before a host has it.

`resolve` is the entry point: it takes a source, and returns the files with their SHA-256.
"""

from zorac_deploy.models.resolve import Resolved, resolve

__all__ = ["Resolved", "resolve"]
