"""Checks of the driver and the GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from zorac_deploy.doctor import xid
from zorac_deploy.doctor.trouble import Facts, Trouble, answers, part, rows

_HOT_CELSIUS = 88
_HELD_MIB = 500


def driver(facts: Facts, name: str) -> Iterator[Trouble]:
    """The driver: loaded, on disk, its library; other processes using the GPU; Secure Boot; DKMS; the headers."""
    gpus = part(facts, "gpus")
    if not gpus:
        return
    versions, kernel = gpus["driver"], gpus["kernel"]
    loaded, disk, library = versions["loaded"], versions["installed"], versions["library"]
    shown = f"loaded {loaded or 'none'}, on the disk {disk or 'none'}, library {library or 'none'}"
    dkms = facts.get("dkms") if isinstance(facts.get("dkms"), str) else ""
    if loaded and library and loaded != library:
        reboot = disk == library
        yield Trouble(
            "driver_library_mismatch",
            "fault",
            "The kernel runs another version of the NVIDIA driver than the libraries on the disk have."
            + (
                " The host was not restarted since the upgrade."
                if reboot
                else " Module and libraries are from two sources."
            ),
            shown,
            "sudo reboot"
            if reboot
            else "sudo apt-get install --reinstall linux-headers-$(uname -r)\nsudo dkms autoinstall\n"
            "sudo update-initramfs -u\nsudo reboot",
            "Do not reinstall CUDA or vLLM. Do not run NVIDIA's .run installer over apt packages.",
        )
    if gpus["cards"] and not loaded:
        if gpus["nouveau_loaded"]:
            yield Trouble(
                "nouveau_loaded",
                "fault",
                "The kernel's own driver nouveau holds the GPU, so NVIDIA's driver cannot.",
                "nouveau is loaded, nvidia is not",
                f"zorac-deploy up {name}   # on your machine: it installs the driver; if there is one:\n"
                "printf 'blacklist nouveau\\noptions nouveau modeset=0\\n' | "
                "sudo tee /etc/modprobe.d/blacklist-nouveau.conf\n"
                "sudo update-initramfs -u\nsudo reboot",
                "Do not delete nouveau.ko. Do not forget update-initramfs.",
            )
        elif disk and gpus["secure_boot"]:
            yield Trouble(
                "secure_boot",
                "fault",
                "The driver is not loaded. Secure Boot is on, and refuses modules whose key is not enrolled.",
                f"{shown}; Secure Boot is on",
                "sudo modprobe nvidia   # 'Key was rejected by service' confirms it\n"
                "sudo mokutil --import /var/lib/dkms/mok.pub\n"
                "sudo reboot   # and choose 'Enroll MOK' on the console of the host",
                "Do not switch Secure Boot off as the first answer. Do not reboot without a way to the console.",
                confidence=0.8,
            )
        elif dkms and kernel not in dkms and not gpus["kernel_headers"]:
            yield Trouble(
                "kernel_headers_missing",
                "fault",
                f"The driver was not built for the running kernel {kernel}, and its headers are not installed.",
                f"no /lib/modules/{kernel}/build; dkms: {dkms.strip().splitlines()[0]}",
                "sudo apt-get install linux-headers-$(uname -r)\nsudo dkms autoinstall\nsudo modprobe nvidia",
                "Do not link the headers of another kernel into /lib/modules.",
            )
        elif dkms and kernel not in dkms:
            yield Trouble(
                "dkms_build_failed",
                "fault",
                f"The driver was not built for the running kernel {kernel}.",
                f"dkms: {dkms.strip().splitlines()[0]}",
                "sudo dkms autoinstall   # its make.log has the first error\nsudo modprobe nvidia",
                "Do not purge all NVIDIA packages while the previous kernel works.",
            )
        elif disk:
            yield Trouble(
                "module_not_loaded",
                "fault",
                "The driver is installed, and its kernel module is not loaded.",
                shown,
                "sudo modprobe nvidia   # its error says why",
                "Do not reinstall CUDA or vLLM.",
                safe=("modprobe nvidia",),
            )
        else:
            yield Trouble(
                "module_not_loaded",
                "fault",
                "The host has an NVIDIA GPU and no driver.",
                f"{len(gpus['cards'])} GPU on the bus; {shown}",
                f"zorac-deploy up {name}   # on your machine: it installs the driver",
            )
    elif loaded and loaded == library and gpus["smi_error"]:
        yield Trouble(
            "no_devices_found",
            "fault",
            "The driver is loaded, and nvidia-smi fails.",
            str(gpus["smi_error"]).splitlines()[0],
            "journalctl -k -b | grep NVRM   # act on that line\nsudo reboot",
            "Do not change the driver branch before a cold start.",
        )


def gpu_health(facts: Facts, _name: str) -> Iterator[Trouble]:
    """Memory errors, the PCIe link, temperature and power, and the Xid lines of the kernel's log."""
    for row in rows(facts, "gpu_health"):
        number = row.get("index", "?")
        if row.get("ecc.errors.uncorrected.volatile.total", "0").isdecimal() and int(
            row.get("ecc.errors.uncorrected.volatile.total", "0")
        ):
            yield Trouble(
                "ecc_xid",
                "fault",
                f"GPU {number} found memory errors that it could not correct.",
                f"{row['ecc.errors.uncorrected.volatile.total']} uncorrected ECC errors since the driver was loaded",
                "nvidia-smi -q -d ECC,ROW_REMAPPER\n"
                f"sudo systemctl stop vllm nvidia-persistenced && sudo nvidia-smi --gpu-reset -i {number}",
                "Do not switch ECC off.",
            )
        if row.get("remapped_rows.failure") == "Yes":
            yield Trouble(
                "ecc_xid",
                "fault",
                f"GPU {number} could not replace a bad row of its memory. The card is worn out.",
                "remapped_rows.failure: Yes",
                "sudo systemctl disable --now vllm   # then have the card exchanged (RMA)",
                "Do not restart in a loop. Do not switch ECC off.",
            )
        elif row.get("remapped_rows.pending") == "Yes":
            yield Trouble(
                "ecc_xid",
                "warning",
                f"GPU {number} replaces a bad row of its memory at the next reset.",
                "remapped_rows.pending: Yes",
                f"sudo systemctl stop vllm nvidia-persistenced && sudo nvidia-smi --gpu-reset -i {number}\n"
                "sudo systemctl start vllm",
                "It is not fatal: do not return the card.",
            )
        width, most = row.get("pcie.link.width.current", ""), row.get("pcie.link.width.max", "")
        if width.isdecimal() and most.isdecimal() and int(width) * 2 < int(most):
            yield Trouble(
                "pcie_link_narrow",
                "warning",
                f"GPU {number} uses {width} of {most} PCIe lanes. Loading a model takes longer.",
                f"PCIe link width {width}, most {most}",
                "Reseat the card, or put it into a slot with more lanes.",
            )
        reasons = {key.partition(".")[2]: value for key, value in row.items() if key.startswith("clocks_throttle")}
        slowed = [name for name, value in reasons.items() if value == "Active"]
        if slowed or (row.get("temperature.gpu", "").isdecimal() and int(row["temperature.gpu"]) >= _HOT_CELSIUS):
            yield Trouble(
                "gpu_throttled",
                "warning",
                f"GPU {number} is slowed down by heat or power.",
                f"{row.get('temperature.gpu', '?')} °C, {', '.join(slowed) or 'near its limit'}",
                "nvidia-smi -q -d TEMPERATURE,POWER,PERFORMANCE   # check fans, air flow and power cables",
            )
    log = facts.get("kernel_log")
    for event in xid.events(log if isinstance(log, str) else ""):
        yield Trouble(event.finding, event.severity, event.meaning, event.line, event.action, event.avoid)


def memory(facts: Facts, _name: str) -> Iterator[Trouble]:
    """Other processes using GPU memory while the engine does not run."""
    gpus, unit_name = part(facts, "gpus"), part(facts, "unit").get("Id")
    if answers(facts) or not unit_name:
        return
    for holder in gpus.get("holders", ()):
        if holder["unit"] != unit_name and (holder["used_mib"] or 0) > _HELD_MIB:
            owner = holder["unit"] or ""
            stop = f"sudo systemctl stop {owner}" if owner.endswith(".service") else f"sudo kill {holder['pid']}"
            yield Trouble(
                "free_memory_lt_util",
                "fault",
                "Another process holds the GPU's memory, and the engine does not run.",
                f"{holder['name']} (process {holder['pid']}) {owner} holds {holder['used_mib']} MiB",
                f"{stop}\nsudo systemctl restart {unit_name}",
                "Do not raise gpu-memory-utilization. Do not kill processes that you do not know.",
            )
