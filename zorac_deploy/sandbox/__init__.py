"""Sandbox hosts: Debian with systemd as PID 1, on this machine, reached over real SSH.

No other part of zorac-deploy knows this package: a sandbox is an inventory file, like any host's.
"""
