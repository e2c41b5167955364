"""Where a model may come from, and what it consists of, before any host has it.

`resolve` is the way in: it takes what a person wrote, and says which files that is, with their SHA-256.
"""

from zorac_deploy.models.resolve import Resolved, resolve

__all__ = ["Resolved", "resolve"]
