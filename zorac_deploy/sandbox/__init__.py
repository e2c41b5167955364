"""Throwaway Debian hosts with systemd as PID 1, on this machine, reached over real SSH.

The rest of zorac-deploy knows nothing of this package: a sandbox is an inventory file, like any other host's.
"""
