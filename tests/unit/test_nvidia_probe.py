"""zorac_host/nvidia_probe.py: the facts of a host with a made-up /sys and fake programs."""

import pytest

from zorac_host import nvidia_probe

SMI = """<?xml version="1.0" ?>
<nvidia_smi_log>
  <driver_version>580.159.04</driver_version>
  <gpu id="00000000:01:00.0">
    <product_name>NVIDIA GeForce RTX 4090</product_name>
    <uuid>GPU-1</uuid>
    <fb_memory_usage><total>24564 MiB</total><reserved>480 MiB</reserved><used>812 MiB</used></fb_memory_usage>
    <gpu_power_readings>
      <current_power_limit>350.00 W</current_power_limit><default_power_limit>450.00 W</default_power_limit>
      <min_power_limit>150.00 W</min_power_limit><max_power_limit>N/A</max_power_limit>
    </gpu_power_readings>
    <processes>
      <process_info><pid>77</pid><type>G</type><process_name>/usr/lib/xorg/Xorg</process_name>
        <used_memory>301 MiB</used_memory></process_info>
    </processes>
  </gpu>
</nvidia_smi_log>
"""


@pytest.fixture
def root(tmp_path):
    """A host with an RTX 4090, its audio device, and another vendor's GPU."""

    def device(address, **files):
        folder = tmp_path / "sys/bus/pci/devices" / address
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(f"{text}\n")
        return folder

    card = device("0000:01:00.0", vendor="0x10de", device="0x2684", **{"class": "0x030000"})
    device("0000:01:00.1", vendor="0x10de", device="0x22ba", **{"class": "0x040300"})
    device("0000:00:02.0", vendor="0x8086", device="0x4680", **{"class": "0x030000"})
    monitor = card / "drm/card0/card0-HDMI-A-1"
    monitor.mkdir(parents=True)
    (monitor / "status").write_text("connected\n")
    return tmp_path


@pytest.fixture(autouse=True)
def programs(monkeypatch):
    """Fakes for the programs that the probe runs; others are not installed."""
    answers = {}
    monkeypatch.setattr(
        nvidia_probe, "_run", lambda *words: answers.get(words[:2], (127, f"{words[0]} is not installed"))
    )
    return answers


def test_a_gpu_without_a_driver_is_listed(root):
    found = nvidia_probe.probe(root)
    assert [(card["address"], card["device"], card["driver"]) for card in found["cards"]] == [
        ("0000:01:00.0", "0x2684", None)
    ]
    assert found["monitors"] == ["0000:01:00.0"]
    assert found["smi_error"] == "nvidia-smi is not installed"
    assert found["driver"]["loaded"] is None
    assert found["secure_boot"] is None


def test_a_working_driver_lists_gpus_and_processes(root, programs):
    programs["nvidia-smi", "--query"] = (0, SMI)
    programs["nvidia-smi", "--query-gpu=uuid,compute_cap"] = (0, "GPU-1, 8.9")
    found = nvidia_probe.probe(root)
    assert found["gpus"] == [
        {
            "uuid": "GPU-1",
            "name": "NVIDIA GeForce RTX 4090",
            "address": "0000:01:00.0",
            "compute": "8.9",
            "total_mib": 24564,
            "reserved_mib": 480,
            "used_mib": 812,
            "power_watts": {"current": 350.0, "default": 450.0, "min": 150.0, "max": None},
        }
    ]
    assert found["holders"] == [
        {"gpu": "GPU-1", "pid": 77, "name": "/usr/lib/xorg/Xorg", "unit": None, "used_mib": 301}
    ]


def test_a_process_has_its_name_and_its_unit(root, programs):
    programs["nvidia-smi", "--query"] = (0, SMI)
    programs["nvidia-smi", "--query-gpu=uuid,compute_cap"] = (0, "GPU-1, 8.9")
    process = root / "proc/77"
    process.mkdir(parents=True)
    (process / "comm").write_text("Xorg\n")
    (process / "cgroup").write_text("0::/user.slice/user-1000.slice/session-2.scope\n")
    holder = nvidia_probe.probe(root)["holders"][0]
    assert (holder["name"], holder["unit"]) == ("Xorg", "session-2.scope")


def test_a_driver_and_library_that_differ_are_told_apart(root, programs):
    programs["nvidia-smi", "--query"] = (18, "Failed to initialize NVML: Driver/library version mismatch")
    programs["modinfo", "--field"] = (0, "580.159.04")
    (root / "proc/driver/nvidia").mkdir(parents=True)
    (root / "proc/driver/nvidia/version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\n"
    )
    (root / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (root / "usr/lib/x86_64-linux-gnu/libcuda.so.580.159.04").touch()
    found = nvidia_probe.probe(root)
    driver = found["driver"]
    assert (driver["loaded"], driver["installed"], driver["library"]) == ("580.95.05", "580.159.04", "580.159.04")
    assert "mismatch" in found["smi_error"]


def test_packages_and_their_holds(root, programs):
    rows = "ii |nvidia-smi|535.309.01-1\nhi |libcuda1|535.309.01-1\nrc |nvidia-old|1\nii |bash|5.2\n"
    programs["dpkg-query", "--show"] = (0, rows)
    assert nvidia_probe.probe(root)["driver"]["packages"] == [
        {"name": "nvidia-smi", "version": "535.309.01-1", "held": False},
        {"name": "libcuda1", "version": "535.309.01-1", "held": True},
    ]


@pytest.mark.parametrize(("value", "expected"), [(b"\x01", True), (b"\x00", False)])
def test_secure_boot_is_read_from_the_firmware(root, value, expected):
    variable = root / nvidia_probe._SECURE_BOOT
    variable.parent.mkdir(parents=True)
    variable.write_bytes(b"\x06\x00\x00\x00" + value)
    assert nvidia_probe.probe(root)["secure_boot"] is expected


def test_a_driver_from_a_run_file_is_recognised(root):
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/nvidia-uninstall").touch()
    assert nvidia_probe.probe(root)["driver"]["run_file"]
