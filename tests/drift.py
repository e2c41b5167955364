"""Drift on a sandbox host: break it behind the tool's back, and require that `up` reports and restores it."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zorac_deploy.sandbox import host as sandbox

# Shell variables for the scripts: the engine's directory, its site-packages, the model's directory.
_DIRECTORIES = """
E=$(dirname "$(ls /opt/zorac-deploy/engines/*/installed.txt)")
S=$(ls -d "$E"/lib/python3*/site-packages)
M=$(ls -d /var/lib/zorac-deploy/models/*[0-9a-f]/)
"""


class Host:
    """A deployed sandbox host.

    Attributes:
        name: Its name.
        inventory: Its inventory.
    """

    def __init__(self, name: str, inventory: Path | None = None) -> None:
        self.name = name
        self.inventory = inventory or sandbox.find(name).inventory

    def run(self, script: str) -> int:
        """Run a shell script as root; its exit code."""
        command = sandbox.ssh_command(sandbox.find(self.name), "sudo", "sh", "-s")
        done = subprocess.run(command, input=_DIRECTORIES + script, capture_output=True, text=True, check=False)
        return done.returncode

    def up(self, *options: str) -> dict[str, Any]:
        """Run `up`, which has to succeed; its answer."""
        command = ["zorac-deploy", "up", "--json", *options, "--inventory", self.inventory]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    def doctor(self) -> dict[str, str]:
        """Ask the doctor; the printed fix of each finding."""
        command = ["zorac-deploy", "doctor", self.name, "--json", "--inventory", self.inventory]
        done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=True)
        return {finding["id"]: finding["fix"] for finding in json.loads(done.stdout)}

    def require_healed(self, cases: Sequence[dict[str, str]]) -> None:
        """Break all `cases` at once: `up` reports and restores each.

        Args:
            cases: Each with its ``name``, the shell lines ``break`` and ``healed``, and ``named``, which `up` reports.
                Some with ``doctor``, the finding of the doctor, which prints the same `up` as its fix.
        """
        for case in cases:
            assert self.run(case["break"]) == 0, case["name"]
            assert self.run(case["healed"]) != 0, f"{case['name']}: not broken"
        findings = {case["doctor"] for case in cases if "doctor" in case}
        if findings:
            fixes = self.doctor()
            up = f"zorac-deploy up {self.name} --inventory {self.inventory} "
            assert [name for name in findings if not fixes.get(name, "").startswith(up)] == [], fixes
        answer = self.up()
        named = json.dumps(answer["differences"])
        assert [case["name"] for case in cases if case["named"] not in named] == [], named
        assert answer["changed"]
        assert [case["name"] for case in cases if self.run(case["healed"])] == []
        if findings:
            assert self.doctor() == {}

    def require_converged(self) -> None:
        """`up` needs no role, and one that reads every file and runs every role changes nothing."""
        assert self.up()["log"] is None
        thorough = self.up("--deep", "--full")
        assert (thorough["differences"], thorough["changed"]) == ([], [])
