"""Examine the host for `zorac-deploy doctor`, with named probes that run in parallel and change nothing.

It runs from memory, also on a host that was never deployed. The probes return data, which the controller
interprets.
"""

import hashlib
import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from zorac_host import nvidia_probe, port, status, store, verify
from zorac_host.look import lock_holder

_LIMIT_SECONDS = 4
_NAME_LIMIT_SECONDS = 1
_FIRST_USER, _NOBODY = 1000, 65_534
_LOG_LINES = 3000
_LOG_CHARACTERS = 400_000
_UNIT_NAMES = ("vllm*.service", "llama*.service")
_ENGINE = re.compile(r"\b(vllm|llama-server)\b")
_NO_SOURCES = ("Dir::Etc::SourceList=/dev/null", "Dir::Etc::SourceParts=/dev/null")
_PROPERTIES = (
    "Id,LoadState,UnitFileState,ActiveState,SubState,Result,ExecMainStatus,NRestarts,MainPID,FragmentPath,DropInPaths,"
    "NeedDaemonReload,ExecStart,MemoryMax,LimitNOFILE,User,ActiveEnterTimestampMonotonic"
)
_KERNEL_LINES = re.compile(
    r"NVRM|nvidia|nouveau|oom|Out of memory|Killed process|Lockdown|signed|AER: .*(Fatal|Uncorrect)|I/O error|"
    r"EXT4-fs error|Linux version",
    re.IGNORECASE,
)
_THROTTLES = ("hw_thermal_slowdown", "sw_thermal_slowdown", "hw_power_brake_slowdown")
_HEALTH = (
    "uuid",
    "index",
    "temperature.gpu",
    "pcie.link.width.current",
    "pcie.link.width.max",
    "ecc.errors.uncorrected.volatile.total",
    *(f"clocks_throttle_reasons.{name}" for name in _THROTTLES),
)
_REMAPPED = ("remapped_rows.pending", "remapped_rows.failure")


def look() -> dict[str, Any]:
    """The results of all probes, by name; a failed one has ``failed`` with the reason."""
    began = time.monotonic()
    units = _units()
    engine = _chosen(units)
    settings = _settings(engine)
    probes: dict[str, Callable[[], Any]] = {
        "system": _system,
        "disks": lambda: _disks(settings),
        "packages": _packages,
        "gpus": lambda: nvidia_probe.probe(Path("/")),
        "gpu_health": _gpu_health,
        "dkms": lambda: _output("dkms", "status"),
        "engine_log": lambda: _log(f"--unit={engine['Id']}") if engine else "",
        "kernel_log": _kernel_log,
        "listeners": lambda: _listeners(settings),
        "endpoint": lambda: _endpoint(settings),
        "verification": lambda: verify.look(deep=False),
        "status": status.read,
    }
    with ThreadPoolExecutor(len(probes)) as pool:
        running = {name: pool.submit(_tried, probe) for name, probe in probes.items()}
        results = {name: future.result() for name, future in running.items()}
    return {
        **results,
        "units": units,
        "unit": engine,
        "about": settings,
        "seconds": round(time.monotonic() - began, 3),
    }


def _tried(probe: Callable[[], Any]) -> Any:
    try:
        return probe()
    except Exception as error:  # noqa: BLE001 - a probe that fails on a broken host is a finding, not an end
        return {"failed": f"{type(error).__name__}: {error}"}


def _output(*command: str, errors: bool = False, limit: float = _LIMIT_SECONDS) -> str:
    """The output of the command, truncated; empty if it is not installed or does not end."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=limit,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + (done.stderr if errors else ""))[-_LOG_CHARACTERS:]


def _system() -> dict[str, Any]:
    """The distribution, the kernel, the memory, and the proxy settings."""
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)"?$', Path("/etc/os-release").read_text(), re.MULTILINE))
    memory = dict(re.findall(r"^(\w+): +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE))
    return {
        "id": release.get("ID", ""),
        "version": release.get("VERSION_ID", ""),
        "kernel": os.uname().release,
        "hostname": os.uname().nodename,
        "users": [user.pw_name for user in pwd.getpwall() if _FIRST_USER <= user.pw_uid < _NOBODY],
        "memory_free_mib": int(memory.get("MemAvailable", 0)) >> 10,
        "memory_total_mib": int(memory.get("MemTotal", 0)) >> 10,
        "proxy": {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")},
        "resolves": bool(_output("getent", "hosts", "huggingface.co", limit=_NAME_LIMIT_SECONDS)),
        "reboot_needed": Path("/run/reboot-required").exists(),
    }


def _disks(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The relevant file systems: free bytes and inodes, and whether they are writable."""
    paths = ["/", "/boot", "/var", "/var/lib", "/var/log", "/tmp", "/dev/shm", settings.get("model_path", "")]  # noqa: S108
    by_device: dict[int, dict[str, Any]] = {}
    for path in filter(None, paths):
        if not Path(path).exists():
            continue
        device, numbers = Path(path).stat().st_dev, os.statvfs(path)
        if numbers.f_blocks and device not in by_device:
            by_device[device] = {
                "path": path,
                "free": numbers.f_bavail * numbers.f_frsize,
                "size": numbers.f_blocks * numbers.f_frsize,
                "inodes_free": numbers.f_favail if numbers.f_files else None,
                "read_only": bool(numbers.f_flag & os.ST_RDONLY),
            }
    return list(by_device.values())


def _packages() -> dict[str, Any]:
    """The state of dpkg and apt, and the process with their lock."""
    fields = "--showformat=${db:Status-Abbrev}|${Package}|${db:Status-Status}\n"
    rows = [line.split("|") for line in _output("dpkg-query", "--show", fields).splitlines()]
    settled = ("installed", "config-files", "not-installed")
    # Without sources it looks at what is installed only, and writes no cache.
    settings = ("Dir::Cache::pkgcache=", "Dir::Cache::srcpkgcache=", "Debug::NoLocking=1", *_NO_SOURCES)
    options = [word for setting in settings for word in ("-o", setting)]
    return {
        "unsettled": {name: state for _, name, state in rows if state not in settled},
        "apt": _output("apt-get", *options, "check", errors=True) if shutil.which("apt-get") else "",
        "lock": lock_holder(Path("/var/lib/dpkg/lock-frontend")),
    }


def _gpu_health() -> list[dict[str, str]]:
    """What the driver says of the GPUs' health: temperature, link, errors, and what slows them down."""
    rows = _csv("gpu", *_HEALTH)
    remapped = {row["gpu_uuid"]: row for row in _csv("remapped-rows", "gpu_uuid", *_REMAPPED)}
    return [{**row, **remapped.get(row["uuid"], {})} for row in rows]


def _csv(kind: str, *fields: str) -> list[dict[str, str]]:
    """What nvidia-smi answers to a query, a row for each GPU."""
    shown = _output("nvidia-smi", f"--query-{kind}={','.join(fields)}", "--format=csv,noheader,nounits")
    rows = [dict(zip(fields, map(str.strip, line.split(",")), strict=False)) for line in shown.splitlines()]
    return [row for row in rows if len(row) == len(fields)]


def _units() -> list[dict[str, str]]:
    """The units that run an engine, by their names or by their programs."""
    listed = _output("systemctl", "list-unit-files", "--no-legend", "--no-pager", *_UNIT_NAMES)
    names = [line.split()[0] for line in listed.splitlines() if line.split()]
    loaded = _shown("*.service", "Id,ExecStart")
    names += [unit["Id"] for unit in loaded if _ENGINE.search(unit.get("ExecStart", ""))]
    names += store.units()
    return [unit for name in dict.fromkeys(names) if "@." not in name for unit in _shown(name, _PROPERTIES)]


def _shown(name: str, properties: str) -> list[dict[str, str]]:
    text = _output("systemctl", "show", name, f"--property={properties}")
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in text.split("\n\n")]
    return [block for block in blocks if block]


def _chosen(units: list[dict[str, str]]) -> dict[str, str]:
    """The unit to examine: the deployed one, a running one, or the first."""
    current = store.current()
    named = [unit for unit in units if current and unit.get("Id") == current.unit]
    running = [unit for unit in units if unit.get("ActiveState") in ("active", "activating", "failed")]
    return next(iter(named or running or units), {})


def _settings(engine: dict[str, str]) -> dict[str, Any]:
    """The engine's address and model, from its generation or its command line."""
    current = store.current()
    if current:
        names = ("host", "port", "model", "model_path", "engine", "engine_path", "max_model_len", "unit", "profile")
        return {name: current.manifest.get(name) for name in names} | {"number": current.number}
    line = re.search(r"argv\[\]=(.*?) ; ", engine.get("ExecStart", ""))
    command = shlex.split(line[1]) if line else []
    options = dict(re.findall(r"--([\w-]+)[= ](\S+)", " ".join(command)))
    default = "8080" if any("llama-server" in argument for argument in command) else "8000"
    text = options.get("port", default)
    return (
        {
            "host": options.get("host", "127.0.0.1"),
            "port": int(text) if text.isdecimal() else int(default),
            "model": options.get("served-model-name", ""),
            "model_path": next(
                (argument for argument in [options.get("model", ""), *command] if argument.startswith("/srv")), ""
            ),
            "unit": engine.get("Id", ""),
        }
        if engine
        else {}
    )


def _log(*which: str) -> str:
    return _output("journalctl", *which, "--boot", "--no-pager", "--quiet", "--output=short", f"--lines={_LOG_LINES}")


def _kernel_log() -> str:
    return "\n".join(line for line in _log("--dmesg").splitlines() if _KERNEL_LINES.search(line))


def _listeners(settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The processes listening on the engine's port."""
    if not settings.get("port"):
        return []
    shown = _output(
        "ss", "--no-header", "--listening", "--tcp", "--numeric", "--processes", f"sport = :{settings['port']}"
    )
    listeners = []
    for name, pid in dict.fromkeys(re.findall(r'\("([^"]*)",pid=(\d+)', shown)):
        listeners.append({"name": name, "pid": int(pid), "unit": port.unit_of(int(pid))})
    return listeners


def _endpoint(settings: dict[str, Any]) -> dict[str, Any]:
    """The endpoint as a client sees it: the status of routes with and without the key, the models, and the metrics."""
    if not settings.get("port"):
        return {}
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(str(settings["host"]), str(settings["host"]))  # noqa: S104
    base = f"http://{host}:{settings['port']}"
    key = store.key() if store.KEY_FILE.exists() else ""
    # Without the key first: a log that ends with a refusal looks like a client with a wrong key.
    closed = _get(base, "/v1/models", "")[0]
    health, models, metrics = (_get(base, path, key) for path in ("/health", "/v1/models", "/metrics"))
    names = re.compile(
        r"^(?:vllm|llamacpp):(num_requests_running|num_requests_waiting|kv_cache_usage_perc|"
        r"num_preemptions_total|requests_processing|requests_deferred)(?:\{.*\})? (\S+)$",
        re.MULTILINE,
    )
    try:
        served = [model["id"] for model in json.loads(models[1])["data"]]
    except (ValueError, KeyError, TypeError):
        served = []
    return {
        "health": health[0],
        "models": models[0],
        "open": closed,
        "served": served,
        # enough to compare with a client's key
        "key_sha256": hashlib.sha256(key.encode()).hexdigest() if key else "",
        "metrics": {name: float(value) for name, value in names.findall(metrics[1])},
    }


def _get(base: str, path: str, key: str) -> tuple[int, str]:
    """The status and the body of a request; 0 without an answer."""
    request = urllib.request.Request(base + path, headers={"Authorization": f"Bearer {key}"} if key else {})  # noqa: S310
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=2) as answer:
            return answer.status, answer.read(_LOG_CHARACTERS).decode(errors="replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read(10_000).decode(errors="replace")
    except (OSError, ValueError):
        return 0, ""
