"""Find the cause of a symptom, and the command that cures it.

``rules`` loads and checks the rules, YAML files in ``rules/``; ``log`` reads logs. ``zorac_host.diagnosis`` finds
causes in lines, because the host does that too.
"""
