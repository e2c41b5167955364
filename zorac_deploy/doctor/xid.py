"""NVIDIA's catalogue of Xid errors: their meaning and the first step, for the kernel's log of a host.

From https://docs.nvidia.com/deploy/xid-errors/. In a pasted log only those with a rule are reported.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE = re.compile(r"NVRM: Xid \((?:PCI:)?([0-9a-fA-F:.]+)\): (\d+)\b")
_RESET = "sudo systemctl stop vllm nvidia-persistenced && sudo nvidia-smi --gpu-reset\nsudo systemctl start vllm"
_POWER = "Shut the host down, cut its power, reseat the card and its power cables, and start it again"
_UPGRADE = "Upgrade vLLM and the driver\nsudo systemctl restart vllm"
_NOT_HARDWARE = "Do not blame the card: this error is mostly one of the program."

# The meaning of an Xid, the cure, the severity, and the name of the rule for logs.
_CATALOGUE: dict[int, tuple[str, str, str, str]] = {
    13: ("A program on the GPU made an error (graphics exception).", _UPGRADE, "warning", "xid_program"),
    31: ("A program on the GPU reached memory that is not its own.", _UPGRADE, "warning", "xid_program"),
    32: ("The GPU got invalid commands: the bus, the driver or the card.", _UPGRADE, "warning", "xid_program"),
    43: ("The GPU stopped the work of a program after an error.", _UPGRADE, "warning", "xid_program"),
    45: (
        "Work was ended early because of an error before it.",
        "journalctl -k -b | grep Xid   # the first Xid is the cause",
        "warning",
        "xid_program",
    ),
    48: ("The GPU found a memory error that it could not correct.", _RESET, "fault", "ecc_xid"),
    61: ("The GPU's own controller halted.", f"{_RESET}\n{_POWER}", "fault", "xid_hardware"),
    62: ("The GPU's own controller halted.", f"{_RESET}\n{_POWER}", "fault", "xid_hardware"),
    63: ("The GPU replaces a bad row of its memory at the next reset.", _RESET, "warning", "ecc_xid"),
    64: (
        "The GPU could not replace a bad row of its memory: the card is worn out.",
        "nvidia-smi -q -d ROW_REMAPPER   # 'Remapping Failure Occurred : Yes': exchange the card",
        "fault",
        "ecc_xid",
    ),
    69: ("A program on the GPU made an error (graphics class).", _UPGRADE, "warning", "xid_program"),
    74: ("An NVLink has errors.", f"nvidia-smi nvlink --status\n{_RESET}", "fault", "xid_hardware"),
    79: ("The GPU has fallen off the PCIe bus.", _POWER, "fault", "gpu_off_bus_xid79"),
    92: (
        "The GPU corrects many single-bit errors.",
        "nvidia-smi -q -d ECC   # watch it; if they continue, exchange the card",
        "warning",
        "ecc_xid",
    ),
    94: (
        "A memory error hit one process, which was ended.",
        "sudo systemctl restart vllm\nnvidia-smi -q -d ECC,ROW_REMAPPER",
        "fault",
        "ecc_xid",
    ),
    95: ("A memory error hit all processes on the GPU.", _RESET, "fault", "ecc_xid"),
    109: ("The GPU did not switch between programs in time.", _UPGRADE, "warning", "xid_program"),
    119: ("The GPU's firmware (GSP) does not answer.", f"{_RESET}\nsudo reboot", "fault", "xid_hardware"),
    120: ("The GPU's firmware (GSP) failed.", f"{_RESET}\nsudo reboot", "fault", "xid_hardware"),
    140: ("The GPU has memory errors from which it did not recover.", _RESET, "fault", "ecc_xid"),
    154: (
        "The driver says that the GPU needs a reset or the host a reboot.",
        "journalctl -k -b | grep -A1 'Xid.*154'   # it names the action\nsudo reboot",
        "fault",
        "xid_hardware",
    ),
}


@dataclass(frozen=True)
class Event:
    """The last Xid of a kind on a GPU."""

    finding: str
    severity: str
    meaning: str
    line: str
    action: str
    avoid: str


def events(log: str) -> Iterator[Event]:
    """The Xids in a kernel's log, each once per GPU."""
    lines = {(hit[1], int(hit[2])): line for line in log.splitlines() if (hit := _LINE.search(line))}
    for (address, number), line in lines.items():
        unknown = (
            "The driver reported an error of the GPU.",
            "See https://docs.nvidia.com/deploy/xid-errors/",
            "warning",
            "xid_unknown",
        )
        meaning, action, severity, finding = _CATALOGUE.get(number, unknown)
        avoid = _NOT_HARDWARE if finding == "xid_program" else "Do not reinstall driver, CUDA or vLLM first."
        yield Event(finding, severity, f"{meaning} (Xid {number}, GPU {address})", line.strip()[:300], action, avoid)
