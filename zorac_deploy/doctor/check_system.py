"""Checks of disks and packages."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from zorac_deploy.doctor.trouble import Facts, Trouble, part, rows

_LEAST_FREE_BYTES = 64 * 2**20
_LEAST_FREE_INODES = 1000


def disks(facts: Facts, _name: str) -> Iterator[Trouble]:
    """Space, inodes, and read-only file systems."""
    for disk in rows(facts, "disks"):
        path = disk["path"]
        if disk["read_only"]:
            yield Trouble(
                "disk_read_only",
                "fault",
                f"The file system of {path} can only be read. The kernel does this after errors of a disk.",
                f"{path} is mounted read-only",
                "journalctl -k -b | grep -iE 'I/O error|EXT4-fs error'\n"
                "sudo reboot   # the file system is checked then",
                "Do not remount it for writing before you know the error.",
            )
        elif disk["free"] < _LEAST_FREE_BYTES:
            full = shlex.quote(path)
            yield Trouble(
                "disk_full",
                "fault",
                f"The file system of {path} is full.",
                f"{disk['free'] >> 20} of {disk['size'] >> 20} MiB are free on {path}",
                f"sudo du -xh --max-depth=2 {full} 2> /dev/null | sort -h | tail   # remove what you do not need\n"
                "sudo apt-get clean\nsudo journalctl --vacuum-size=200M",
                "Do not delete files in the hub's cache by hand, the blobs belong to snapshots.",
                safe=("apt-get clean", "journalctl --vacuum-size=200M"),
            )
        elif disk["inodes_free"] is not None and disk["inodes_free"] < _LEAST_FREE_INODES:
            yield Trouble(
                "disk_full",
                "fault",
                f"The file system of {path} has no inodes left: too many small files.",
                f"{disk['inodes_free']} inodes are free on {path}",
                f"sudo du --inodes -x --max-depth=3 {shlex.quote(path)} 2> /dev/null | sort -n | tail   # remove them",
            )


def packages(facts: Facts, _name: str) -> Iterator[Trouble]:
    """Half-installed packages, incompatible versions, and the process with the package lock."""
    answer = part(facts, "packages")
    lock = answer.get("lock")
    if lock:
        yield Trouble(
            "dpkg_locked",
            "warning",
            f"{lock['name']} (process {lock['pid']}) installs packages at this moment.",
            f"the lock of dpkg is held by process {lock['pid']} ({lock['name']})",
            "sudo apt-get -o DPkg::Lock::Timeout=600 update   # waits for it",
            "Never remove the lock files. Never kill dpkg or apt in the middle of a run.",
        )
    unsettled = answer.get("unsettled") or {}
    if unsettled and not lock:
        names = ", ".join(f"{name} ({state})" for name, state in sorted(unsettled.items())[:5])
        yield Trouble(
            "apt_held_broken",
            "fault",
            "An earlier installation was cut off, and packages are half configured.",
            names,
            "sudo dpkg --configure -a",
            "Do not use dpkg --force-all. Do not edit /var/lib/dpkg/status.",
            safe=("DEBIAN_FRONTEND=noninteractive dpkg --configure -a",),
        )
    problems = [line for line in str(answer.get("apt", "")).splitlines() if "Depends:" in line or line.startswith("E:")]
    if problems and not lock and not unsettled:
        yield Trouble(
            "apt_held_broken",
            "fault",
            "apt finds packages whose dependencies are not met.",
            problems[0].strip(),
            "sudo apt-get install --fix-broken",
            "Do not use dpkg --force-all or --force-overwrite.",
        )
