#!/usr/bin/env python3
"""Ansible inventory of a molecule scenario's sandbox host: how to reach it, and nothing else."""

import json
import os

import yaml

from zorac_deploy.sandbox import host

hostvars = {}
for sandbox in host.listed():
    if sandbox.name == f"molecule-{os.environ['MOLECULE_SCENARIO_NAME']}":
        hostvars |= yaml.safe_load(sandbox.inventory.read_text())["cpu"]["hosts"]
print(json.dumps({"all": {"hosts": list(hostvars)}, "_meta": {"hostvars": hostvars}}))  # noqa: T201 - its purpose
