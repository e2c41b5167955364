"""zorac_deploy/gpus.py: the probe's output as GPUs with their processes."""

import json

import pytest

from zorac_deploy import gpus
from zorac_deploy.connection import Connection
from zorac_deploy.inventory import Target

PROBED = {
    "cards": [{"address": "0000:01:00.0"}, {"address": "0000:02:00.0"}],
    "monitors": ["0000:02:00.0"],
    "gpus": [
        {
            "uuid": "GPU-1",
            "name": "RTX 4090",
            "address": "0000:01:00.0",
            "compute": "8.9",
            "total_mib": 24564,
            "used_mib": 21000,
            "power_watts": {"current": 350.0, "default": 450.0, "min": 150.0, "max": 600.0},
        }
    ],
    "holders": [
        {"gpu": "GPU-1", "pid": 7, "name": "python3", "unit": None, "used_mib": None},
        {"gpu": "GPU-1", "pid": 8, "name": "VLLM::EngineCore", "unit": "vllm.service", "used_mib": 20500},
    ],
    "driver": {"loaded": "580.95.05"},
    "smi_error": None,
}


@pytest.fixture
def found(monkeypatch):
    def look(**changes):
        monkeypatch.setattr(Connection, "read", lambda *_: json.dumps(PROBED | changes))
        return gpus.read(Connection(Target("tower", "headless", "tower", local=True)))

    return look


def test_every_gpu_is_listed_with_or_without_a_driver(found):
    cards = found().cards
    assert [(card.address, card.name, card.monitor) for card in cards] == [
        ("0000:01:00.0", "RTX 4090", False),
        ("0000:02:00.0", None, True),
    ]


def test_processes_are_listed_by_gpu_the_largest_first(found):
    assert [holder.name for holder in found().cards[0].holders] == ["VLLM::EngineCore", "python3"]
    assert found().cards[1].holders == ()


def test_without_a_driver_the_error_is_reported(found):
    without = found(gpus=[], holders=[], driver={"loaded": None}, smi_error="nvidia-smi is not installed")
    assert (without.driver, without.error) == (None, "nvidia-smi is not installed")
    assert all(card.uuid is None for card in without.cards)
