"""Everything that an offline host needs, in one directory of parts: create, verify, unpack."""

from zorac_deploy.bundle.about import SYSTEMS, About, digest, read
from zorac_deploy.bundle.making import Wish, create
from zorac_deploy.bundle.parts import verify
from zorac_deploy.bundle.unpacking import unpack

__all__ = ["SYSTEMS", "About", "Wish", "create", "digest", "read", "unpack", "verify"]
