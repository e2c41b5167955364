#!/usr/bin/env python3
"""Ansible inventory of the sandbox hosts that molecule's scenarios make: how to reach each, and nothing else."""

import json

import yaml

from zorac_deploy.sandbox import host

hostvars = {}
for sandbox in host.listed():
    if sandbox.name.startswith("molecule-"):
        hostvars |= yaml.safe_load(sandbox.inventory.read_text())["cpu"]["hosts"]
print(json.dumps({"all": {"hosts": list(hostvars)}, "_meta": {"hostvars": hostvars}}))  # noqa: T201 - its purpose
