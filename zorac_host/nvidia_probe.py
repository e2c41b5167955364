"""Report the NVIDIA GPUs and the driver of this host as one line of JSON. Changes nothing.

Usage: ``nvidia_probe.py [ROOT]``. ROOT replaces / in tests; programs are found on PATH.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

_NVIDIA = "0x10de"
_DISPLAY_CLASS = "0x03"  # VGA and 3D controllers; a card's audio device has another class
_SECURE_BOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def probe(root: Path) -> dict[str, object]:
    """All facts, by name."""
    smi, driver = _smi(root), _driver(root)
    return {
        "cards": _cards(root),
        "monitors": _monitors(root),
        "gpus": smi["gpus"],
        "holders": smi["holders"],
        "smi_error": smi["error"],
        "driver": driver,
        "state": _state(driver, smi["gpus"]),
        "nouveau_loaded": (root / "sys/module/nouveau").is_dir(),
        "secure_boot": _secure_boot(root),
        "kernel": os.uname().release,
        "kernel_headers": (root / "lib/modules" / os.uname().release / "build").exists(),
        "boot_free_mib": _free_mib(root / "boot"),
        "boot_id": _text(root / "proc/sys/kernel/random/boot_id"),
    }


def _state(driver: dict[str, object], gpus: object) -> list[dict[str, object]]:
    """The GPUs and the driver as parts of a desired state: another driver or GPU is a difference."""
    names = {"loaded": "loaded", "disk": "installed", "library": "library"}
    versions = {name: driver[key] for name, key in names.items() if driver[key]}
    kernel = [{"kind": "kernel", "module": "nvidia", **versions}] if versions else []
    expected = {"name": "name", "memory.total": "total_mib"}
    return kernel + [
        {
            "kind": "card",
            "uuid": gpu["uuid"],
            "expected": {name: gpu[key] for name, key in expected.items() if gpu[key]},
        }
        for gpu in (gpus if isinstance(gpus, list) else ())
    ]


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _run(*command: str) -> tuple[int, str]:
    if shutil.which(command[0]) is None:
        return 127, f"{command[0]} is not installed"
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout if done.returncode == 0 else done.stdout + done.stderr).strip()


def _cards(root: Path) -> list[dict[str, object]]:
    """The GPUs on the PCI bus, with or without a driver."""
    devices = sorted((root / "sys/bus/pci/devices").glob("*"))
    return [
        {
            "address": device.name,
            "device": _text(device / "device"),
            "driver": (device / "driver").resolve().name if (device / "driver").exists() else None,
        }
        for device in devices
        if _text(device / "vendor") == _NVIDIA and (_text(device / "class") or "").startswith(_DISPLAY_CLASS)
    ]


def _monitors(root: Path) -> list[str]:
    """The PCI addresses of all GPUs, of any vendor, with a connected monitor."""
    states = (root / "sys/bus/pci/devices").glob("*/drm/card*/card*-*/status")
    return sorted({state.parents[3].name for state in states if _text(state) == "connected"})


def _smi(root: Path) -> dict[str, list[dict[str, object]] | str | None]:
    """The output of nvidia-smi: the working GPUs, and the processes using their memory."""
    code, output = _run("nvidia-smi", "--query", "--xml-format")
    if code != 0:
        return {"gpus": [], "holders": [], "error": output or f"nvidia-smi ended with exit code {code}"}
    _, capabilities = _run("nvidia-smi", "--query-gpu=uuid,compute_cap", "--format=csv,noheader")
    compute = dict(line.split(", ") for line in capabilities.splitlines() if line.count(", ") == 1)
    gpus: list[dict[str, object]] = []
    holders: list[dict[str, object]] = []
    for gpu in ElementTree.fromstring(output).iter("gpu"):  # noqa: S314 - from the driver's own program
        uuid = gpu.findtext("uuid", "")
        gpus.append(
            {
                "uuid": uuid,
                "name": gpu.findtext("product_name"),
                "address": _pci_address(gpu.get("id", "")),
                "compute": compute.get(uuid),
                "total_mib": _mib(gpu.findtext("fb_memory_usage/total")),
                "reserved_mib": _mib(gpu.findtext("fb_memory_usage/reserved")),
                "used_mib": _mib(gpu.findtext("fb_memory_usage/used")),
                "power_watts": {
                    name: _watts(gpu.findtext(f"gpu_power_readings/{name}_power_limit"))
                    for name in ("current", "default", "min", "max")
                },
            }
        )
        for process in gpu.iter("process_info"):
            pid = process.findtext("pid", "0")
            holders.append(
                {
                    "gpu": uuid,
                    "pid": int(pid),
                    "name": _text(root / "proc" / pid / "comm") or process.findtext("process_name"),
                    "unit": _unit(_text(root / "proc" / pid / "cgroup") or ""),
                    "used_mib": _mib(process.findtext("used_memory")),
                }
            )
    return {"gpus": gpus, "holders": holders, "error": None}


def _unit(cgroup: str) -> str | None:
    """The systemd unit of a process, from its /proc/PID/cgroup: the innermost service or scope."""
    units = re.findall(r"[^/:]+\.(?:service|scope)", cgroup)
    return units[-1] if units else None


def _pci_address(bus_id: str) -> str:
    """Convert `00000000:01:00.0` to sysfs's `0000:01:00.0`."""
    domain, _, rest = bus_id.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _mib(text: str | None) -> int | None:
    match = re.match(r"(\d+) MiB", text or "")
    return int(match[1]) if match else None


def _watts(text: str | None) -> float | None:
    match = re.match(r"([\d.]+) W", text or "")
    return float(match[1]) if match else None


def versions(root: Path = Path("/")) -> dict[str, str | None]:
    """The driver's versions: ``loaded``, on ``disk``, and of the ``library`` that programs load."""
    loaded = re.search(r"Kernel Module.*?(\d+\.\d+(?:\.\d+)?)", _text(root / "proc/driver/nvidia/version") or "")
    # Debian's own packages rename the module.
    answers = [_run("modinfo", "--field", "version", module) for module in ("nvidia", "nvidia-current")]
    library = _library(root)
    return {
        "loaded": loaded[1] if loaded else None,
        "disk": next((version for code, version in answers if code == 0 and re.match(r"\d+\.", version)), None),
        "library": library.name.removeprefix("libcuda.so.") if library else None,
    }


def _library(root: Path) -> Path | None:
    libraries = sorted(
        path
        for folder in ("usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib", "usr/local/nvidia/lib64")
        for path in (root / folder).glob("libcuda.so.[0-9]*.*")
    )
    return libraries[0] if libraries else None


def _driver(root: Path) -> dict[str, object]:
    """The loaded driver, the one on disk, the library that programs load, and its owner."""
    driver, library = versions(root), _library(root)
    return {
        "loaded": driver["loaded"],
        "installed": driver["disk"],
        "library": driver["library"],
        "library_package": _owner(library) if library else None,
        "packages": _packages(),
        "run_file": (root / "usr/bin/nvidia-uninstall").exists() and _owner(Path("/usr/bin/nvidia-uninstall")) is None,
    }


def _owner(path: Path) -> str | None:
    """The Debian package that owns a file; None for none."""
    code, output = _run("dpkg-query", "--search", str(path))
    return output.split(":", 1)[0] if code == 0 else None


def _packages() -> list[dict[str, object]]:
    """The installed driver packages, with their versions and holds."""
    code, output = _run("dpkg-query", "--show", "--showformat=${db:Status-Abbrev}|${Package}|${Version}\n")
    rows = [line.split("|") for line in output.splitlines()] if code == 0 else []
    return [
        {"name": name, "version": version, "held": status.startswith("hi")}
        for status, name, version in rows
        if status[1:2] == "i" and re.search(r"nvidia|^libcuda1$|^cuda-drivers", name)
    ]


def _secure_boot(root: Path) -> bool | None:
    """Whether the firmware enforces Secure Boot; None without such firmware."""
    try:
        return (root / _SECURE_BOOT).read_bytes()[-1:] == b"\x01"  # four bytes of attributes, then the value
    except OSError:
        return None


def _free_mib(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free // 2**20
    except OSError:
        return None


if __name__ == "__main__":
    print(json.dumps(probe(Path(sys.argv[1] if len(sys.argv) > 1 else "/"))))
