"""All that a host without a network needs, in one folder of parts of a chosen size: made here, checked, unpacked."""

from zorac_deploy.bundle.about import SYSTEMS, About, digest, read
from zorac_deploy.bundle.making import Wish, create
from zorac_deploy.bundle.parts import verify
from zorac_deploy.bundle.unpacking import unpack

__all__ = ["SYSTEMS", "About", "Wish", "create", "digest", "read", "unpack", "verify"]
