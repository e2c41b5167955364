"""roles/gpu_compatibility: what goes together is let through, what does not is refused with its cure."""

import copy
import itertools

import pytest
import yaml

from tests.unit.roles import program

compatibility = program("gpu_compatibility", "compatibility")
LOCK = yaml.safe_load(compatibility._LOCK.read_text())
ENGINE = "cuda-0.26.0"


def host(device="0x2684", loaded="580.159.04", gpus=()):
    """The facts of a host with one card; 0x2684 is an RTX 4090."""
    cards = [{"address": "0000:01:00.0", "device": device, "driver": "nvidia", "drives_a_monitor": False}]
    return {
        "cards": cards,
        "gpus": list(gpus),
        "driver": {"loaded": loaded},
        "smi_error": "nvidia-smi is not installed",
    }


def decide(facts, engine=ENGINE, dtype="auto", planned=None):
    return compatibility.decide(facts, LOCK, engine, dtype, planned)


@pytest.mark.parametrize(
    ("device", "name", "compute", "modules"),
    [
        ("0x1b06", "Pascal", "6.1", "proprietary"),  # GTX 1080 Ti
        ("0x1db4", "Volta", "7.0", "proprietary"),  # V100
        ("0x1e07", "Turing", "7.5", "open"),  # RTX 2080 Ti
        ("0x1eb8", "Turing", "7.5", "open"),  # T4
        ("0x20b0", "Ampere", "8.0", "open"),  # A100
        ("0x2204", "Ampere", "8.6", "open"),  # RTX 3090
        ("0x2330", "Hopper", "9.0", "open"),  # H100 SXM5
        ("0x2335", "Hopper", "9.0", "open"),  # H200
        ("0x2484", "Ampere", "8.6", "open"),  # RTX 3070
        ("0x2684", "Ada", "8.9", "open"),  # RTX 4090
        ("0x26b9", "Ada", "8.9", "open"),  # L40S
        ("0x2901", "Blackwell", "10.0", "open"),  # B200
        ("0x2b85", "Blackwell", "12.0", "open"),  # RTX 5090
    ],
)
def test_cards_are_known_by_their_pci_id(device, name, compute, modules):
    row = compatibility.generation(LOCK, device)
    assert (row["name"], row["compute"], row["modules"]) == (name, compute, modules)


def test_ranges_of_ids_do_not_overlap():
    bounds = sorted(tuple(int(bound, 16) for bound in row["ids"]) for row in LOCK["generations"])
    assert all(low <= high for low, high in bounds)
    assert all(earlier[1] < later[0] for earlier, later in itertools.pairwise(bounds))


def test_a_4090_with_a_good_driver_and_fp8_goes_through():
    decision = decide(host(), dtype="fp8")
    assert decision["modules"] == "open"
    assert [card["compute"] for card in decision["cards"]] == ["8.9"]


def test_what_a_working_driver_says_goes_before_the_table():
    gpu = {"address": "0000:01:00.0", "compute": "9.9", "name": "NVIDIA Future"}
    assert decide(host(device="0xffff", gpus=[gpu]))["cards"][0]["name"] == "NVIDIA Future"


def test_a_card_that_only_the_driver_sees_counts():
    facts = host(gpus=[{"address": "0000:00:05.0", "compute": "9.0", "name": "NVIDIA H100"}])
    assert decide({**facts, "cards": []})["cards"][0]["compute"] == "9.0"


@pytest.mark.parametrize(
    ("facts", "options", "refusal", "says"),
    [
        ({**host(), "cards": []}, {}, "gpu-missing", "lspci -d 10de:"),
        (host(device="0xffff"), {}, "gpu-unknown", "device 0xffff"),
        (host(), {"engine": "cuda-9.9.9"}, "gpu-unknown-engine", "Choose one of"),
        (host(device="0x1b06"), {}, "gpu-too-old", "Pascal card at 0000:01:00.0 with 6.1"),
        (host(device="0x2204"), {"dtype": "fp8"}, "kv-dtype-unsupported", "vllm_kv_cache_dtype: auto"),
        (host(loaded=None), {}, "driver-missing", "nvidia-smi is not installed"),
        (host(loaded="535.309.01"), {}, "driver-too-old", "the one loaded is 535.309.01"),
        (host(loaded="580.65.05"), {}, "driver-too-old", "needs driver 580.65.06"),
        (host(), {"planned": "550.163.01"}, "driver-too-old", "the one to be installed is 550.163.01"),
    ],
)
def test_what_does_not_go_together_is_refused(facts, options, refusal, says):
    with pytest.raises(compatibility.Fault, match=rf"^\[{refusal}\] ") as fault:
        decide(facts, **options)
    assert says in str(fault.value)


def test_a_driver_that_is_going_to_be_installed_is_the_one_that_counts():
    decide(host(loaded=None), planned="580.95.05")


def test_two_cards_of_which_one_is_too_old_are_served_by_the_other():
    facts = host()
    old = {**copy.deepcopy(facts["cards"][0]), "address": "0000:02:00.0", "device": "0x1b06"}
    decision = decide({**facts, "cards": [*facts["cards"], old]})
    assert decision["modules"] == "proprietary"


def test_every_engine_has_a_row():
    locks = {path.stem for path in (compatibility._LOCK.parents[2] / "vllm_engine/files/locks").glob("*.txt")}
    assert locks == set(LOCK["engines"])
