"""gpu-ready.service: the settings of every boot are reset when the unit stops."""

from tests.templates.render import render_file

GPUS = [
    {"uuid": "GPU-1", "address": "0000:01:00.0", "name": "RTX 4090", "power_watts": {"default": 450.0}},
    {"uuid": "GPU-2", "address": "0000:02:00.0", "name": "RTX 3090", "power_watts": {"default": 390.0}},
]


def lines(**changes):
    unit = render_file("gpu_ready", "etc/systemd/system/gpu-ready.service.j2", gpu_ready_gpus=GPUS, **changes)
    return [line for line in unit.splitlines() if "--id=" in line]


def test_without_settings_no_gpu_is_changed():
    assert lines() == []


def test_a_limit_is_for_the_named_gpu_and_reset_to_its_default():
    assert lines(gpu_ready_power_limits_watts={"GPU-1": 350}) == [
        "ExecStart=nvidia-smi --id=GPU-1 --power-limit=350",
        "ExecStop=nvidia-smi --id=GPU-1 --power-limit=450.0",
    ]


def test_a_gpus_own_limit_overrides_the_general_one():
    limits = {"all": 300, "0000:02:00.0": 250}
    starts = [line for line in lines(gpu_ready_power_limits_watts=limits) if line.startswith("ExecStart")]
    assert starts == [
        "ExecStart=nvidia-smi --id=GPU-1 --power-limit=300",
        "ExecStart=nvidia-smi --id=GPU-2 --power-limit=250",
    ]


def test_a_gpu_can_be_excluded():
    assert [line for line in lines(gpu_ready_power_limits_watts={"all": 300, "GPU-1": None}) if "GPU-1" in line] == []


def test_clocks_are_locked_and_released():
    assert lines(gpu_ready_clocks_mhz={"GPU-2": [210, 1800]}) == [
        "ExecStart=nvidia-smi --id=GPU-2 --lock-gpu-clocks=210,1800",
        "ExecStop=nvidia-smi --id=GPU-2 --reset-gpu-clocks",
    ]
