"""From a symptom to its cause and the command that cures it.

``rules`` loads and checks the rules, which are YAML in the folder ``rules/``; ``log`` reads logs. How lines become
findings is in ``zorac_host.diagnosis``, for the host does it too.
"""
