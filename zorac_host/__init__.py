"""The host program: it keeps a host's generations. ``zorac-host --help`` lists its commands."""

__version__ = "0.1.0"
# Counts the changes after which a program that asks this one by its commands has to ask in another way.
PROTOCOL = 1


class Fault(Exception):
    """What a word of this program could not do. Its message is for the person."""
