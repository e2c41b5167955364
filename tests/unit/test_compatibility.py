"""zorac_deploy/compatibility.py: compatible setups pass, others are refused with a cure."""

import copy
import itertools

import pytest

from zorac_deploy import actions, compatibility, content
from zorac_deploy.errors import Refused

LOCK = compatibility.locked()
ENGINE = "cuda-0.26.0"


def host(device="0x2684", loaded="580.159.04", gpus=()):
    """The facts of a host with one GPU; 0x2684 is an RTX 4090."""
    cards = [{"address": "0000:01:00.0", "device": device, "driver": "nvidia"}]
    return {
        "cards": cards,
        "monitors": [],
        "holders": [],
        "gpus": list(gpus),
        "driver": {"loaded": loaded},
        "smi_error": "nvidia-smi is not installed",
    }


def decide(facts, engine=ENGINE, dtype="auto", planned=None, wanted=()):
    return compatibility.decide(facts, LOCK, engine, dtype, planned, wanted)


def two_cards(**gpu):
    """An RTX 4090 with the monitor and an RTX 3090 without, both with a working driver."""
    gpus = [
        {"uuid": "GPU-4090", "address": "0000:01:00.0", "compute": "8.9", "name": "RTX 4090", "total_mib": 24564},
        {"uuid": "GPU-3090", "address": "0000:02:00.0", "compute": "8.6", "name": "RTX 3090", "total_mib": 24576},
    ]
    facts = host(gpus=[{"used_mib": 500, **card, **gpu} for card in gpus])
    facts["cards"].append({**facts["cards"][0], "address": "0000:02:00.0", "device": "0x2204"})
    return {**facts, "monitors": ["0000:01:00.0"]}


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
        ("0x2901", "Blackwell", "10.0", "open-only"),  # B200
        ("0x2b85", "Blackwell", "12.0", "open-only"),  # RTX 5090
    ],
)
def test_gpus_are_identified_by_their_pci_id(device, name, compute, modules):
    row = compatibility.generation(LOCK, device)
    assert (row["name"], row["compute"], row["modules"]) == (name, compute, modules)


def test_ranges_of_ids_do_not_overlap():
    bounds = sorted(tuple(int(bound, 16) for bound in row["ids"]) for row in LOCK["architectures"])
    assert all(low <= high for low, high in bounds)
    assert all(earlier[1] < later[0] for earlier, later in itertools.pairwise(bounds))


def test_a_4090_with_a_working_driver_and_fp8_passes():
    decision = decide(host(), dtype="fp8")
    assert decision["modules"] == "open"
    assert [card["compute"] for card in decision["cards"]] == ["8.9"]


def test_a_working_drivers_values_override_the_table():
    gpu = {"address": "0000:01:00.0", "compute": "9.9", "name": "NVIDIA Future"}
    assert decide(host(device="0xffff", gpus=[gpu]))["cards"][0]["name"] == "NVIDIA Future"


def test_a_gpu_that_only_the_driver_knows_counts():
    facts = host(gpus=[{"address": "0000:00:05.0", "compute": "9.0", "name": "NVIDIA H100"}])
    assert decide({**facts, "cards": []})["cards"][0]["compute"] == "9.0"


@pytest.mark.parametrize(
    ("facts", "options", "refusal", "says"),
    [
        ({**host(), "cards": []}, {}, "gpu-missing", "lspci -d 10de:"),
        (host(device="0xffff"), {}, "gpu-unknown", "device 0xffff"),
        (host(), {"engine": "cuda-9.9.9"}, "gpu-unknown-engine", "Choose one of"),
        (host(device="0x1b06"), {}, "gpu-too-old", "Pascal card at 0000:01:00.0 has compute capability 6.1"),
        (host(device="0x2204"), {"dtype": "fp8"}, "kv-dtype-unsupported", "vllm_kv_cache_dtype: auto"),
        (host(loaded=None), {}, "driver-missing", "nvidia-smi is not installed"),
        (host(loaded="535.309.01"), {}, "driver-too-old", "the loaded driver is 535.309.01"),
        (host(loaded="580.65.05"), {}, "driver-too-old", "needs driver 580.65.06"),
        (host(), {"planned": "550.163.01"}, "driver-too-old", "the planned driver is 550.163.01"),
    ],
)
def test_incompatible_setups_are_refused(facts, options, refusal, says):
    with pytest.raises(Refused) as fault:
        decide(facts, **options)
    assert fault.value.refusal == refusal
    assert says in str(fault.value)


def test_the_action_returns_the_decision_or_the_refusal():
    asked = {"facts": two_cards(used_mib=3100), "engine": ENGINE, "cards": ["GPU-4090"]}
    assert actions.check_compatibility(asked)["result"]["selected"][0]["uuid"] == "GPU-4090"
    refused = actions.check_compatibility({**asked, "gpu_memory_utilization": 0.92, "units": ["vllm.service"]})
    assert refused["failed"]
    assert refused["refusal"]["id"] == "gpu-memory-held"
    assert refused["refusal"]["exit_code"] == 78


def test_the_driver_to_be_installed_counts():
    decide(host(loaded=None), planned="580.95.05")


@pytest.mark.parametrize(("planned", "enough"), [("580", True), ("590", True), ("570", False), ("550.163.01", False)])
def test_a_branch_stands_for_its_newest_version(planned, enough):
    if enough:
        decide(host(loaded=None), planned=planned)
    else:
        with pytest.raises(Refused, match="needs driver"):
            decide(host(loaded=None), planned=planned)


def test_an_unsupported_gpu_is_not_chosen():
    facts = host()
    old = {**copy.deepcopy(facts["cards"][0]), "address": "0000:00:01.0", "device": "0x1b06"}
    decision = decide({**facts, "cards": [old, *facts["cards"]]})
    assert decision["modules"] == "proprietary"
    assert [card["address"] for card in decision["selected"]] == ["0000:01:00.0"]


def test_an_unknown_old_gpu_may_drive_the_monitor():
    facts = host()
    ancient = {**facts["cards"][0], "address": "0000:00:01.0", "device": "0x0a65"}  # GeForce 210
    assert len(decide({**facts, "cards": [ancient, *facts["cards"]]})["cards"]) == 1


def test_blackwell_needs_open_modules_beside_any_gpu():
    facts = host(device="0x2b85")
    old = {**facts["cards"][0], "address": "0000:02:00.0", "device": "0x1b06"}
    assert decide({**facts, "cards": [*facts["cards"], old]})["modules"] == "open"


def test_the_gpu_with_the_monitor_is_not_chosen():
    assert [card["uuid"] for card in decide(two_cards())["selected"]] == ["GPU-3090"]


def test_the_larger_gpu_is_chosen_without_a_monitor():
    facts = two_cards() | {"monitors": []}
    facts["gpus"][0]["total_mib"] = 49140
    assert decide(facts)["selected"][0]["uuid"] == "GPU-4090"


@pytest.mark.parametrize("name", ["GPU-4090", "0000:01:00.0"])
def test_a_named_gpu_is_chosen_even_with_a_monitor(name):
    assert [card["uuid"] for card in decide(two_cards(), wanted=[name])["selected"]] == ["GPU-4090"]


def test_two_gpus_can_be_named():
    assert len(decide(two_cards(), wanted=["GPU-4090", "GPU-3090"])["selected"]) == 2


def test_a_missing_gpu_is_refused_with_the_existing_ones():
    with pytest.raises(Refused, match=r"names GPU-9.*RTX 3090: 0000:02:00.0 GPU-3090"):
        decide(two_cards(), wanted=["GPU-9"])


def memory(facts, utilization):
    selected = decide(facts, wanted=["GPU-4090"])["selected"]
    compatibility.check_memory(facts, selected, utilization, "vllm.service")


def holder(name, unit, used, gpu="GPU-4090"):
    return {"gpu": gpu, "pid": 77, "name": name, "unit": unit, "used_mib": used}


def test_a_desktop_using_too_much_memory_is_named_with_the_share_that_fits():
    facts = two_cards(used_mib=3100) | {"holders": [holder("Xorg", "gdm.service", 2900)]}
    with pytest.raises(Refused, match=r"Xorg \(gdm.service, 2900 MiB\).*at most 0.87"):
        memory(facts, 0.92)
    memory(facts, 0.87)


def test_the_engines_own_memory_counts_as_free():
    facts = two_cards(used_mib=22000) | {"holders": [holder("VLLM::EngineCore", "vllm.service", 21500)]}
    memory(facts, 0.92)


def test_an_orphaned_process_of_the_engine_does_not_count_as_free():
    facts = two_cards(used_mib=22000) | {"holders": [holder("VLLM::EngineCore", "session-1.scope", 21500)]}
    with pytest.raises(Refused, match=r"EngineCore \(session-1.scope"):
        memory(facts, 0.92)


def test_memory_on_another_gpu_does_not_count():
    memory(two_cards() | {"holders": [holder("Xorg", "gdm.service", 20000, gpu="GPU-3090")]}, 0.92)


def test_a_gpu_of_unknown_memory_passes():
    memory(two_cards(used_mib=None), 0.92)


def test_every_engine_has_a_row():
    locks = {path.stem for path in content.role_file("engine", "locks").glob("*.txt")}
    assert locks == set(LOCK["engines"])
