"""Boot, list and remove sandbox hosts: systemd-nspawn on an overlay of the shared image, reached over SSH."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from zorac_deploy import content
from zorac_deploy.errors import SandboxError
from zorac_deploy.sandbox import image, model, paths

Network = Literal["shared", "isolated"]
USER = "admin"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,29}")
_BOOT_LIMIT_SECONDS = 60
_STOP_LIMIT_SECONDS = 20
_EXEC_LIMIT_SECONDS = 0.5
_BOOTED = "systemctl is-system-running --wait | grep --quiet --extended-regexp 'running|degraded'"
# uv's cache on a host: bound to this machine's cache, so that a new host downloads nothing again.
_UV_CACHE_ON_HOST = "/srv/uv-cache"
_CGROUPS = Path("/sys/fs/cgroup")

# systemd-nspawn exits with 133 when its host reboots: then it is started again.
_SUPERVISOR = """
cgroups=$1; shift
for cgroup in $cgroups; do echo $$ > "$cgroup/run/cgroup.procs"; done
while :; do "$@"; [ $? -eq 133 ] || exit 0; done
"""


@dataclass(frozen=True)
class Sandbox:
    """A sandbox host.

    Attributes:
        name: The host's name, in the inventory and as its hostname.
        distribution: ``debian12`` or ``debian13``.
        network: ``shared`` uses this machine's network; ``isolated`` is a network namespace that reaches only this
            machine, and has no access to its download caches.
        address: The address of its sshd.
        port: The port of its sshd.
        index: A small number, unique among the existing hosts.
        supervisor_pid: The process that keeps the host running.
    """

    name: str
    distribution: str
    network: Network
    address: str
    port: int
    index: int
    supervisor_pid: int

    @property
    def folder(self) -> Path:
        """The host's directory."""
        return paths.hosts() / self.name

    @property
    def inventory(self) -> Path:
        """The inventory file with the host."""
        return self.folder / "inventory.yml"

    @property
    def running(self) -> bool:
        """Whether the host's supervisor runs, and its pid is not another process's."""
        deadline = time.monotonic() + _EXEC_LIMIT_SECONDS
        while True:
            try:
                words = Path(f"/proc/{self.supervisor_pid}/cmdline").read_text(errors="replace").split("\0")
            except OSError:
                return False
            # A process that was just started has no words yet, and one that ended and was not waited for has none.
            if any(words) or time.monotonic() > deadline:
                return f"--machine={self.name}" in words
            time.sleep(0.01)

    def summary(self) -> dict[str, object]:
        """The object that `sandbox list --json` prints."""
        return {**asdict(self), "running": self.running, "inventory": str(self.inventory)}


def listed() -> list[Sandbox]:
    """All sandbox hosts, by name. One whose record was cut off does not count: `up` and `down` remove what is there."""
    found = []
    for record in sorted(paths.hosts().glob("*/sandbox.json")):
        with contextlib.suppress(ValueError, TypeError):
            found.append(Sandbox(**json.loads(record.read_text())))
    return found


def find(name: str) -> Sandbox:
    """The sandbox host `name`.

    Raises:
        SandboxError: It does not exist.
    """
    for sandbox in listed():
        if sandbox.name == name:
            return sandbox
    there = ", ".join(sandbox.name for sandbox in listed()) or "none"
    raise SandboxError(f"no sandbox named {name}. Existing: {there}. Boot it with: zorac-deploy sandbox up {name}")


def up(
    name: str,
    distribution: str = "debian12",
    network: Network = "shared",
    mirror: str | None = None,
    layer: Path | None = None,
) -> Sandbox:
    """Create the host `name` and wait until it answers over SSH; a running host is returned as it is.

    Args:
        name: The host's name.
        distribution: A key of `image.RELEASES`.
        network: See `Sandbox`.
        mirror: The Debian archive to build the image from.
        layer: What `keep` left of another host, to begin with.

    Raises:
        SandboxError: A tool is missing, this user is not root, or the host did not come up.
    """
    if not _NAME.fullmatch(name):
        raise SandboxError(f"{name!r} is not a valid host name. Use up to 30 lowercase letters, digits and dashes.")
    with contextlib.suppress(SandboxError):
        existing = find(name)
        if existing.running:
            return existing
    _require_tools()
    base = image.ensure(distribution, mirror)
    down(name)
    folder = paths.hosts() / name
    merged = folder / "merged"
    for part in ("upper", "work", "merged"):
        (folder / part).mkdir(parents=True)
    lower = f"{layer}:{base}" if layer else base
    layers = f"lowerdir={lower},upperdir={folder / 'upper'},workdir={folder / 'work'}"
    _run("mount", "-t", "overlay", "overlay", "-o", layers, str(merged))
    try:
        with paths.locked(paths.hosts()):  # otherwise two hosts may get the same index
            index = 1 + max((sandbox.index for sandbox in listed()), default=0)
            address, port = ("127.0.0.1", _free_port()) if network == "shared" else (f"10.231.{index}.2", 22)
            _furnish(merged, name, port)
            _make_keys(folder, merged, address, port)
            if network == "isolated":
                _make_network(name, index)
            pid = _boot(name, merged, network)
            sandbox = Sandbox(name, distribution, network, address, port, index, pid)
            (folder / "sandbox.json").write_text(json.dumps(asdict(sandbox)))
        _write_inventory(sandbox)
        _wait_for_ssh(sandbox, _BOOTED)
    except BaseException:
        down(name)
        raise
    return sandbox


def reset(name: str) -> Sandbox:
    """Cut the power of the host `name`, boot it again, and wait until it answers.

    Its file system is this machine's: unlike on a real host, writes that were not synced are not lost.

    Raises:
        SandboxError: It does not exist, or did not come up.
    """
    old = find(name)
    _cut_off(name)
    sandbox = replace(old, supervisor_pid=_boot(name, old.folder / "merged", old.network))
    (old.folder / "sandbox.json").write_text(json.dumps(asdict(sandbox)))
    _wait_for_ssh(sandbox, "true")  # without waiting for the end of its boot: an engine may take minutes
    return sandbox


def _cut_off(name: str) -> None:
    """Kill every process of the host at once, as a power cut does."""
    for pid in _processes_of(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _STOP_LIMIT_SECONDS
    while _processes_of(name) and time.monotonic() < deadline:
        time.sleep(0.05)


def down(name: str) -> bool:
    """Remove the host `name` and all its files on this machine; return whether it existed."""
    folder = paths.hosts() / name
    existed = folder.exists()
    _cut_off(name)
    subprocess.run(["ip", "netns", "delete", _namespace(name)], capture_output=True, check=False)
    if os.path.ismount(folder / "merged"):
        _run("umount", str(folder / "merged"))
    for cgroup in _cgroup_folders(name):
        for sub, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                Path(sub).rmdir()
    shutil.rmtree(folder, ignore_errors=True)
    return existed


def keep(name: str, layer: Path) -> None:
    """Remove the host `name`, and keep what was changed on it as `layer`, without what is a host's own.

    Raises:
        SandboxError: It does not exist, or its files cannot be moved.
    """
    folder = find(name).folder
    merged = folder / "merged"
    _cut_off(name)
    _run("chroot", str(merged), "userdel", "--remove", USER)
    for key in (merged / "etc/ssh").glob("ssh_host_*"):
        key.unlink()
    shutil.rmtree(merged / "var/log/journal", ignore_errors=True)
    _run("umount", str(merged))
    _run("mv", str(folder / "upper"), str(layer))
    down(name)


def ssh_command(sandbox: Sandbox, *command: str) -> list[str]:
    """The ssh command line that runs `command` on the host, or opens a shell."""
    options = [f"-o{option}" for option in _ssh_options(sandbox.folder)]
    key = str(sandbox.folder / "id_ed25519")
    return ["ssh", "-q", "-i", key, "-p", str(sandbox.port), *options, f"{USER}@{sandbox.address}", *command]


def _require_tools() -> None:
    if os.geteuid() != 0:
        raise SandboxError("a sandbox needs root on this machine. Type: sudo zorac-deploy sandbox up")
    missing = [tool for tool in ("systemd-nspawn", "mmdebstrap", "ssh-keygen", "ip") if shutil.which(tool) is None]
    if missing:
        raise SandboxError(
            f"not installed: {', '.join(missing)}. "
            "Type: apt-get install mmdebstrap systemd-container openssh-client iproute2"
        )


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SandboxError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _namespace(name: str) -> str:
    return f"zorac-{name}"


def _furnish(root: Path, name: str, port: int) -> None:
    """Configure the host: its name, users and settings, and this machine's package registries."""
    (root / "etc/machine-id").write_text("")
    (root / "etc/hostname").write_text(f"{name}\n")
    # with its own name in hosts; otherwise every look-up of it waits ten seconds for DNS
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost {name}\n::1 localhost\n")
    (root / "etc/ssh/sshd_config.d/sandbox.conf").write_text(f"Port {port}\nPasswordAuthentication no\nUseDNS no\n")
    for unit in ("systemd-resolved", "systemd-networkd", "systemd-timesyncd", "console-getty", "getty@tty1"):
        mask = root / "etc/systemd/system" / f"{unit}.service"
        mask.unlink(missing_ok=True)
        mask.symlink_to("/dev/null")
    _run("chroot", str(root), "useradd", "--create-home", "--shell", "/bin/bash", USER)
    (root / "etc/sudoers.d/sandbox").write_text(f"{USER} ALL=(ALL) NOPASSWD: ALL\n")
    bundle = os.environ.get("SSL_CERT_FILE")
    if bundle and Path(bundle).is_file():
        shutil.copyfile(bundle, root / "etc/ssl/certs/ca-certificates.crt")


def _make_keys(folder: Path, root: Path, address: str, port: int) -> None:
    for key in (folder / "id_ed25519", root / "etc/ssh/ssh_host_ed25519_key"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "zorac-deploy-sandbox", "-f", str(key))
    ssh = root / "home" / USER / ".ssh"
    ssh.mkdir(mode=0o700)
    shutil.copyfile(folder / "id_ed25519.pub", ssh / "authorized_keys")
    _run("chroot", str(root), "chown", "-R", f"{USER}:{USER}", f"/home/{USER}/.ssh")
    host_key = (root / "etc/ssh/ssh_host_ed25519_key.pub").read_text().rsplit(" ", 1)[0]
    (folder / "known_hosts").write_text(f"[{address}]:{port} {host_key}\n{address} {host_key}\n")


def _make_network(name: str, index: int) -> None:
    """Create a network namespace that is connected only to this machine."""
    space, here, there = _namespace(name), f"zorac{index}", "host0"
    _run("ip", "netns", "add", space)
    _run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", space)
    _run("ip", "address", "add", f"10.231.{index}.1/30", "dev", here)
    _run("ip", "link", "set", here, "up")
    _run("ip", "-n", space, "address", "add", f"10.231.{index}.2/30", "dev", there)
    for link in (there, "lo"):
        _run("ip", "-n", space, "link", "set", link, "up")


def _cgroup_folders(name: str) -> list[Path]:
    """The host's cgroup in each hierarchy that systemd uses here: one on a unified machine, two on a hybrid one."""
    hierarchies = [_CGROUPS / part for part in ("systemd", "unified") if (_CGROUPS / part).is_dir()] or [_CGROUPS]
    return [hierarchy / f"zorac-sandbox-{name}" for hierarchy in hierarchies]


def _boot(name: str, root: Path, network: Network) -> int:
    cgroups = _cgroup_folders(name)
    for cgroup in cgroups:  # one per host, or two hosts collide
        (cgroup / "run").mkdir(parents=True, exist_ok=True)
    command = ["systemd-nspawn", "--quiet", f"--directory={root}", "--boot", "--register=no", "--keep-unit"]
    command += [f"--machine={name}", "--link-journal=no", "--console=pipe"]
    if network == "shared":
        uv_cache = paths.cache() / "uv"
        uv_cache.mkdir(parents=True, exist_ok=True)
        command += ["--resolv-conf=replace-host", f"--bind={uv_cache}:{_UV_CACHE_ON_HOST}"]
        command += [f"--bind-ro={folder}" for folder in _wheel_folders()]
    else:
        command += ["--resolv-conf=off", f"--network-namespace-path=/run/netns/{_namespace(name)}"]
    with (root.parent / "console.log").open("wb") as console:
        supervisor = subprocess.Popen(
            ["bash", "-c", _SUPERVISOR, "sandbox", " ".join(map(str, cgroups)), *command],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
    return supervisor.pid


def _wheel_folders() -> list[str]:
    return [folder for folder in os.environ.get("PIP_FIND_LINKS", "").split() if Path(folder).is_dir()]


def _ssh_options(folder: Path) -> list[str]:
    return [f"UserKnownHostsFile={folder / 'known_hosts'}", "BatchMode=yes", "ConnectTimeout=5"]


def _write_inventory(sandbox: Sandbox) -> None:
    """Write the host's inventory: an address, a key, and what differs from its profile."""
    folder = sandbox.folder
    variables: dict[str, object] = {
        "ansible_host": sandbox.address,
        "ansible_port": sandbox.port,
        "ansible_user": USER,
        "ansible_ssh_private_key_file": str(folder / "id_ed25519"),
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={folder / 'known_hosts'}",
    }
    variables["model_weights_source"] = str(model.path())
    if sandbox.network == "shared":
        # The hosts share this machine's ports: each has its own port number.
        variables["vllm_port"] = _free_port()
        variables |= _registry_variables(os.environ)
    text = content.render("one-host-inventory.yml.j2", profile="cpu", name=sandbox.name, variables=variables)
    sandbox.inventory.write_text(text)


def _registry_variables(environment: Mapping[str, str]) -> dict[str, object]:
    """This machine's package registries, as variables of the engine role."""
    downloads = {"UV_CACHE_DIR": _UV_CACHE_ON_HOST}
    if "SSL_CERT_FILE" in environment:
        downloads["SSL_CERT_FILE"] = "/etc/ssl/certs/ca-certificates.crt"
    variables: dict[str, object] = {"engine_environment": downloads}
    if _wheel_folders():
        variables["engine_find_links"] = _wheel_folders()
        variables["engine_extra_index_urls"] = []
    return variables


def _wait_for_ssh(sandbox: Sandbox, command: str) -> None:
    """Wait until `command` succeeds on the host."""
    deadline = time.monotonic() + _BOOT_LIMIT_SECONDS
    ready = ssh_command(sandbox, command)
    while time.monotonic() < deadline:
        if not sandbox.running:
            break
        if subprocess.run(ready, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.2)
    console = (sandbox.folder / "console.log").read_text(errors="replace")[-2000:]
    raise SandboxError(f"{sandbox.name} did not boot within {_BOOT_LIMIT_SECONDS} s. Its console:\n{console}")


def _processes_of(name: str) -> list[int]:
    """The processes of the host: all in its cgroups."""
    found: set[int] = set()
    for cgroup in _cgroup_folders(name):
        for sub, _, _ in os.walk(cgroup):  # unlike rglob, it tolerates directories that disappear meanwhile
            with contextlib.suppress(OSError):
                found.update(int(pid) for pid in (Path(sub) / "cgroup.procs").read_text().split())
    return sorted(found)
