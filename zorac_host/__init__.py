"""The host program: it manages a host's generations. ``zorac-host --help`` lists its commands."""

__version__ = "0.1.0"
# The version of the commands and answers. It changes when a caller has to call in another way.
PROTOCOL = 2


class Fault(Exception):
    """A command of this program failed. The message is for the user."""
