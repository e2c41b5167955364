"""A virtual machine for tests: its own kernel, UEFI firmware and Secure Boot, which a sandbox host does not have.

QEMU emulates it in software, about twelve times slower than this machine; therefore, install or build into the tree
(`in_tree`) whatever is possible, not in the guest. It needs root, and on Debian 12 the packages
qemu-system-x86, qemu-utils, ovmf, mtools, dosfstools, fdisk and e2fsprogs, besides what a sandbox needs.
"""

import contextlib
import re
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

from zorac_deploy import content
from zorac_deploy.sandbox.host import USER

_PACKAGES = [
    "linux-image-amd64",
    "initramfs-tools",
    "grub-efi-amd64",
    "grub-efi-amd64-signed",
    "shim-signed",
    "mokutil",
    "openssl",
    "zstd",
]
# Seconds in the emulated guest; several times the duration on an idle machine.
BOOT_LIMIT = 300
_SCREEN_LIMIT = 120
_FIRMWARE = Path("/usr/share/OVMF")
# The start of each partition: the EFI system partition, then the root file system to the end.
_MIB = 1 << 20
_ESP_AT, _ROOT_AT = 1, 65
_ROOT_LABEL = "vm-root"
# Read by Debian's signed GRUB; its directory is compiled into it.
_ESP_GRUB = f"search --no-floppy --label {_ROOT_LABEL} --set root\nconfigfile ($root)/boot/grub/grub.cfg\n"
# Until update-grub runs in the guest for the first time.
_BOOT_GRUB = f"linux /vmlinuz root=LABEL={_ROOT_LABEL} ro console=ttyS0\ninitrd /initrd.img\nboot\n"
_GRUB_DEFAULTS = 'GRUB_TIMEOUT=0\nGRUB_TERMINAL=console\nGRUB_CMDLINE_LINUX="console=ttyS0"\n'
_FSTAB = f"LABEL={_ROOT_LABEL} / ext4 errors=remount-ro 0 0\nLABEL=ESP /boot/efi vfat umask=0077 0 0\n"
# Only the drive's device, not hundreds of others: a small initramfs is unpacked in seconds.
_INITRAMFS = "MODULES=list\n"
_DRIVE_MODULES = "virtio_pci\nvirtio_blk\next4\n"
_UNKNOWN_HOST = ["-oUserKnownHostsFile=/dev/null", "-oStrictHostKeyChecking=no"]
# A connection that a reboot cut off ends by itself within a minute.
_SSH_OPTIONS = [*_UNKNOWN_HOST, "-oBatchMode=yes", "-oConnectTimeout=10", "-oServerAliveInterval=15"]
_ANSI = re.compile(r"\x1b\[[0-9;?=]*[A-Za-z]")
_DOWN, _ENTER = "\x1b[B", "\r"


class MachineFailed(Exception):
    """A step of the machine failed or took too long; the message has the end of the console's output."""


def make_tree(root: Path, sandbox: Path) -> None:
    """Convert a sandbox host's file system at `root` to a server's that boots from a disk (a minute).

    Args:
        root: A directory that does not exist yet.
        sandbox: The root directory of a Debian 12 sandbox host.

    Raises:
        CalledProcessError: A package could not be installed.
    """
    # One file system: the host's mounts are not its own.
    _run("cp", "--archive", "--one-file-system", "--reflink=auto", str(sandbox), str(root))
    (root / "etc/ssh/sshd_config.d/sandbox.conf").unlink()
    shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
    in_tree(root, "apt-get", "-qq", "update", "-oAPT::Update::Error-Mode=any")
    # Before the kernel, so that its initramfs is built once.
    in_tree(root, "apt-get", "-qq", "install", "--no-install-recommends", "initramfs-tools", "zstd")
    _write(root / "etc/initramfs-tools/conf.d/vm.conf", _INITRAMFS)
    _write(root / "etc/initramfs-tools/modules", _DRIVE_MODULES)
    _write(root / "etc/default/grub.d/vm.cfg", _GRUB_DEFAULTS)
    in_tree(root, "apt-get", "-qq", "install", "--no-install-recommends", *_PACKAGES)
    _write(root / "boot/grub/grub.cfg", _BOOT_GRUB)
    _write(root / "etc/fstab", _FSTAB)
    _write(root / "etc/hostname", "vm\n")
    _write(root / "etc/machine-id", "")  # created at the first boot; DHCP fails without the file
    _write(root / "etc/hosts", "127.0.0.1 localhost vm\n")
    _write(root / "etc/resolv.conf", "nameserver 10.0.2.3\n")  # QEMU's own
    _write(root / "etc/systemd/network/vm.network", "[Match]\nName=en*\n[Network]\nDHCP=yes\n")
    _write(root / "etc/ssh/sshd_config.d/vm.conf", "PasswordAuthentication no\nUseDNS no\n")
    (root / "boot/efi").mkdir(exist_ok=True)
    in_tree(root, "systemctl", "unmask", "systemd-networkd")
    in_tree(root, "systemctl", "enable", "systemd-networkd")
    # They would compete with the test for the one slow CPU.
    in_tree(root, "systemctl", "mask", "apt-daily.timer", "apt-daily-upgrade.timer", "man-db.timer")


def in_tree(root: Path, *command: str) -> str:
    """Run `command` natively in the tree `root`, with this machine's network and kernel, and return its output.

    Raises:
        CalledProcessError: It failed.
    """
    space = ["unshare", "--fork", "--pid", "--mount-proc", "--root", str(root)]
    return _run(*space, "env", "DEBIAN_FRONTEND=noninteractive", *command)


def make_disk(root: Path, folder: Path, gib: int = 10) -> None:
    """Create a bootable disk of the tree `root`, and its SSH key, in `folder`; the tree gets its SSH host keys.

    The boot chain is Debian's signed one: shim with MokManager, GRUB, kernel. No loop device is needed.

    Args:
        root: The tree from `make_tree`. It is unchanged, and can be changed and used again.
        folder: A directory that does not exist yet.
        gib: The disk's size; the file is sparse.

    Raises:
        CalledProcessError: A tool is missing or failed.
    """
    folder.mkdir(parents=True)
    disk = str(folder / "disk.img")
    for key in (folder / "id_ed25519", root / "etc/ssh/ssh_host_ed25519_key"):
        key.unlink(missing_ok=True)
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "vm", "-f", str(key))
    _write(root / f"home/{USER}/.ssh/authorized_keys", (folder / "id_ed25519.pub").read_text())
    in_tree(root, "chown", "--recursive", f"{USER}:", f"/home/{USER}/.ssh")
    _run("truncate", f"--size={gib}G", disk)
    esp_mib = _ROOT_AT - _ESP_AT
    partitions = f"start={_ESP_AT}MiB, size={esp_mib}MiB, type=uefi\nstart={_ROOT_AT}MiB, type=linux\n"
    _run("sfdisk", "--quiet", disk, given=f"label: gpt\n{partitions}")
    _run("mkfs.vfat", "-F", "16", "-n", "ESP", f"--offset={_ESP_AT * _MIB // 512}", disk, str(esp_mib * 1024))
    esp = f"{disk}@@{_ESP_AT}M"
    _run("mmd", "-i", esp, "::/EFI", "::/EFI/BOOT", "::/EFI/debian")
    _write(folder / "grub.cfg", _ESP_GRUB)
    for source, target in [
        (root / "usr/lib/shim/shimx64.efi.signed", "BOOT/BOOTX64.EFI"),
        (root / "usr/lib/shim/mmx64.efi.signed", "BOOT/mmx64.efi"),
        (root / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "BOOT/grubx64.efi"),
        (folder / "grub.cfg", "debian/grub.cfg"),
    ]:
        _run("mcopy", "-i", esp, str(source), f"::/EFI/{target}")
    # One MiB stays for the second table at the end. The features are those that GRUB 2.06 does not support.
    options = ["-q", "-L", _ROOT_LABEL, "-O", "^orphan_file,^metadata_csum_seed", "-E", f"offset={_ROOT_AT * _MIB}"]
    _run("mkfs.ext4", *options, "-d", str(root), disk, f"{gib * 1024 - _ROOT_AT - 1}M")


class Machine:
    """A running virtual machine; as a context manager, it is killed at the end.

    It writes to its own layer above the disk, so one disk serves several machines in parallel.

    Args:
        disk: The directory from `make_disk`.
        folder: A new directory for this machine: its layer, firmware variables and `console.log`.
        secure_boot: Whether the firmware enforces Secure Boot, with Microsoft's keys.
        mib: The guest's memory.
    """

    def __init__(self, disk: Path, folder: Path, *, secure_boot: bool = True, mib: int = 3072) -> None:
        folder.mkdir(parents=True)
        self._console = folder / "console.log"
        self._read = 0  # how many characters of the console `expect` has consumed
        self._key = disk / "id_ed25519"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        base, layer, variables = disk.resolve() / "disk.img", folder / "layer.qcow2", folder / "variables.fd"
        _run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(base), str(layer))
        code, template = (f"OVMF_{part}_4M{'.ms' if secure_boot else ''}.fd" for part in ("CODE", "VARS"))
        shutil.copyfile(_FIRMWARE / template, variables)
        command = ["qemu-system-x86_64", "-machine", "q35,smm=on", "-accel", "tcg", "-cpu", "max", "-m", str(mib)]
        command += ["-global", "driver=cfi.pflash01,property=secure,value=on", "-display", "none", "-serial", "stdio"]
        command += ["-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={_FIRMWARE / code}"]
        command += ["-drive", f"if=pflash,format=raw,unit=1,file={variables}"]
        command += ["-drive", f"if=virtio,format=qcow2,cache=unsafe,file={layer}", "-device", "virtio-rng-pci"]
        command += ["-nic", f"user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:{self.port}-:22"]
        with self._console.open("wb") as console:
            self._qemu = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=console, stderr=subprocess.STDOUT, start_new_session=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def run(self, command: str, *, check: bool = True, limit: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a shell line in the guest as `USER`, who can use sudo, within `limit` seconds.

        Raises:
            CalledProcessError: It failed, unless `check` is off; 255 when SSH did.
            TimeoutExpired: It took longer.
        """
        ssh = ["ssh", "-q", "-i", str(self._key), "-p", str(self.port), *_SSH_OPTIONS, f"{USER}@127.0.0.1", command]
        return subprocess.run(ssh, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=check, timeout=limit)

    def wait_for_boot(self, limit: float = BOOT_LIMIT, after: str = "") -> str:
        """Wait until the guest answers over SSH, and return its boot id.

        Args:
            limit: Seconds.
            after: The boot id before a reboot, which does not count.

        Raises:
            MachineFailed: It did not answer within the limit, or QEMU ended.
        """
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline and self._qemu.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                boot = self.run("cat /proc/sys/kernel/random/boot_id", check=False, limit=30).stdout.strip()
                if boot not in ("", after):
                    return boot
            time.sleep(0.5)
        raise MachineFailed(f"no answer over SSH within {limit} s. {self._last_words()}")

    def reboot(self, limit: float = BOOT_LIMIT, enrol: str | None = None) -> str:
        """Reboot the guest, wait until it answers again, and return its boot id.

        Args:
            limit: Seconds.
            enrol: The password of a key to enroll: MokManager's screens are answered.

        Raises:
            MachineFailed: A screen did not appear, or the guest did not come back.
        """
        before = self.wait_for_boot(limit)
        self._read = len(self._shown())
        self.run("sudo systemctl reboot", check=False)
        if enrol is not None:
            self.enrol(enrol)
        return self.wait_for_boot(limit, after=before)

    def enrol(self, password: str) -> None:
        """Answer MokManager as a user at the screen does: enroll the key, then reboot.

        Raises:
            MachineFailed: A screen did not appear.
        """
        # The menu appears at once after `mokutil --timeout -1`.
        if "Press any key" in self.expect("[Pp]erform MOK management"):
            self.type(_ENTER)
        self.expect("Continue boot", "Enroll MOK")
        self.type(_DOWN + _ENTER)
        self.expect("View key 0", "Continue")
        self.type(_DOWN + _ENTER)
        self.expect(re.escape("Enroll the key(s)?"), "Yes")
        self.type(_DOWN + _ENTER)
        self.expect("Password:")
        self.type(password + _ENTER)
        self.expect("Reboot")
        self.type(_ENTER)

    def expect(self, *patterns: str, limit: float = _SCREEN_LIMIT) -> str:
        """Wait until the console shows all `patterns` in order after the last match; return that text.

        Raises:
            MachineFailed: It did not within `limit` seconds, or QEMU ended.
        """
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline and self._qemu.poll() is None:
            shown = self._shown()
            if found := re.compile(".*?".join(patterns), re.DOTALL).search(shown, self._read):
                text = shown[self._read : found.end()]
                self._read = found.end()
                return text
            time.sleep(0.2)
        raise MachineFailed(f"the console did not show {patterns} within {limit} s. {self._last_words()}")

    def type(self, keys: str) -> None:
        """Type on the serial console; escape sequences are the special keys."""
        assert self._qemu.stdin is not None
        self._qemu.stdin.write(keys.encode())
        self._qemu.stdin.flush()

    def power_off(self, limit: float = BOOT_LIMIT) -> None:
        """Shut the guest down.

        Raises:
            MachineFailed: It did not end within `limit` seconds.
        """
        self.run("sudo systemctl poweroff", check=False)
        try:
            self._qemu.wait(limit)
        except subprocess.TimeoutExpired:
            raise MachineFailed(f"still on after {limit} s. {self._last_words()}") from None

    def kill(self) -> None:
        """Cut the power."""
        self._qemu.kill()
        self._qemu.wait()

    def inventory(self, name: str, profile: str, **variables: object) -> str:
        """An inventory with only this machine, with `profile`."""
        reached: dict[str, object] = {
            "ansible_host": "127.0.0.1",
            "ansible_port": self.port,
            "ansible_user": USER,
            "ansible_ssh_private_key_file": str(self._key),
            "ansible_ssh_common_args": " ".join(_UNKNOWN_HOST),
        }
        return content.render("one-host-inventory.yml.j2", profile=profile, name=name, variables=reached | variables)

    def _last_words(self) -> str:
        return f"The console's last words:\n{self._shown()[-2000:]}"

    def _shown(self) -> str:
        return _ANSI.sub("", self._console.read_text(errors="replace"))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _run(*command: str, given: str | None = None) -> str:
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout
