"""Create a package repository in NVIDIA's layout on this host, with fake packages.

Usage: ``repository.py FOLDER``.

The packages have the real names, and a real kernel module that DKMS builds, which does nothing. nvidia-smi is a
program that answers like the real one for one GPU: "no driver" until the next boot, "mismatch" after an upgrade.
"""

import gzip
import hashlib
import subprocess
import sys
from pathlib import Path

SMI = r'''
#!/usr/bin/python3
"""Fake nvidia-smi: one RTX 4090, which works from the boot after the installation on."""
import pathlib, re, sys
loaded = pathlib.Path("/run/nvidia-fake")
if not loaded.exists():
    sys.exit("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.")
if loaded.read_text() != "@VERSION@":
    print("Failed to initialize NVML: Driver/library version mismatch")
    sys.exit(18)
if "--query" in sys.argv:
    print("""<nvidia_smi_log><gpu id="00000000:01:00.0"><product_name>Fake RTX 4090</product_name>
    <uuid>GPU-fake</uuid><fb_memory_usage><total>24564 MiB</total><used>120 MiB</used></fb_memory_usage>
    <gpu_power_readings><current_power_limit>450.00 W</current_power_limit>
    <default_power_limit>450.00 W</default_power_limit><min_power_limit>150.00 W</min_power_limit>
    <max_power_limit>600.00 W</max_power_limit></gpu_power_readings></gpu></nvidia_smi_log>""")
elif "--query-gpu=uuid,compute_cap" in sys.argv:
    print("GPU-fake, 8.9")
elif sys.argv[1].startswith("--query-gpu=uuid,name"):
    log = pathlib.Path("/run/nvidia-smi.log")
    made = log.read_text() if log.exists() else ""
    limit = re.findall("--power-limit=([0-9.]+)", made)[-1:] or ["450.00"]
    persistence = "Enabled" if re.findall("--persistence-mode=([01])", made)[-1:] == ["1"] else "Disabled"
    print(f"GPU-fake, Fake RTX 4090, 24564, @VERSION@, {limit[0]}, {persistence}")
else:
    with open("/run/nvidia-smi.log", "a") as log:
        print(*sys.argv[1:], file=log)
'''
UNIT = """
[Unit]
Description=Fake persistence daemon
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'printf @VERSION@ > /run/nvidia-fake'
[Install]
WantedBy=multi-user.target
"""
MODULE = """
#include <linux/module.h>
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Fake NVIDIA module");
MODULE_VERSION("@VERSION@");
"""
DKMS = """
PACKAGE_NAME="nvidia"
PACKAGE_VERSION="@VERSION@"
BUILT_MODULE_NAME[0]="nvidia"
DEST_MODULE_LOCATION[0]="/updates/dkms"
AUTOINSTALL="yes"
"""
POSTINST = "#!/bin/sh\nset -e\n/usr/lib/dkms/common.postinst nvidia @VERSION@ '' '' ''\n"
PRERM = "#!/bin/sh\nset -e\ndkms remove -m nvidia -v @VERSION@ --all || true\n"


def package(folder: Path, name: str, version: str, depends: str, files: dict[str, str], **scripts: str) -> None:
    """Build one package into `folder`. @VERSION@ in a file is replaced by its version."""
    tree = folder / "build" / f"{name}_{version}"
    control = f"Package: {name}\nVersion: {version}-1\nArchitecture: amd64\nMaintainer: nobody\nDescription: fake\n"
    for path, text in {
        "DEBIAN/control": control + (f"Depends: {depends}\n" if depends else ""),
        **{f"DEBIAN/{script}": text for script, text in scripts.items()},
        **files,
    }.items():
        file = tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text.lstrip("\n").replace("@VERSION@", version))
        file.chmod(0o755 if "bin/" in path or path.startswith("DEBIAN/p") else 0o644)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, folder], check=True, stdout=subprocess.DEVNULL)


def driver(folder: Path, version: str, module: str = MODULE) -> None:
    """The packages of one version of the driver."""
    source = f"usr/src/nvidia-{version}"
    package(
        folder,
        "nvidia-kernel-open-dkms",
        version,
        "dkms",
        {f"{source}/nvidia.c": module, f"{source}/Makefile": "obj-m := nvidia.o\n", f"{source}/dkms.conf": DKMS},
        postinst=POSTINST,
        prerm=PRERM,
    )
    same = f"nvidia-kernel-open-dkms (= {version}-1), libnvidia-fake (= {version}-1)"
    package(folder, "libnvidia-fake", version, "", {})
    package(folder, "nvidia-driver-cuda", version, same, {"usr/bin/nvidia-smi": SMI})
    package(folder, "nvidia-persistenced", version, "", {"usr/lib/systemd/system/nvidia-persistenced.service": UNIT})


def index(folder: Path) -> None:
    """Write apt's index, signed by a key created for it."""
    text = ""
    for deb in sorted(folder.glob("*.deb")):
        fields = subprocess.run(["dpkg-deb", "--field", deb], check=True, capture_output=True, text=True).stdout
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        text += f"{fields}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n\n"
    (folder / "Packages").write_text(text)
    (folder / "Packages.gz").write_bytes(gzip.compress(text.encode()))
    sums = [
        f" {hashlib.sha256((folder / name).read_bytes()).hexdigest()} {(folder / name).stat().st_size} {name}"
        for name in ("Packages", "Packages.gz")
    ]
    release = "\n".join(["Origin: fake", "Date: Mon, 01 Jan 2024 00:00:00 UTC", "SHA256:", *sums, ""])
    (folder / "Release").write_text(release)
    gpg = ["gpg", "--homedir", folder / "keys", "--batch", "--yes"]
    (folder / "keys").mkdir(mode=0o700)
    made = [*gpg, "--passphrase", "", "--quick-generate-key", "fake <nobody@example.com>"]
    subprocess.run(made, check=True, capture_output=True)
    subprocess.run([*gpg, "--output", folder / "InRelease", "--clearsign", folder / "Release"], check=True)
    subprocess.run([*gpg, "--output", folder / "cuda-archive-keyring.gpg", "--export"], check=True)


def main() -> None:
    """Versions: two of branch 580, a newer branch, and a branch whose module does not build."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True)
    for version in ("580.65.06", "580.95.05", "590.44.01"):
        driver(folder, version)
    driver(folder, "585.10", MODULE + "int broken(void) { return pci_resize_resource(0); }\n")
    index(folder)


if __name__ == "__main__":
    main()
