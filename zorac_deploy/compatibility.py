"""Choose the GPUs to compute on, and check that they, the driver, the engine and the flags are compatible."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from zorac_deploy import content
from zorac_deploy.errors import Refused

Facts = Mapping[str, Any]


def locked() -> Facts:
    """The compatibility lock."""
    lock: Facts = content.data(content.role_file("gpu_compatibility", "compatibility.yml"))
    return lock


def version(text: str) -> tuple[int, ...]:
    """A version as numbers, for comparison."""
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def generation(lock: Facts, device: str) -> Facts | None:
    """The lock's row for a GPU with the PCI id `device`, such as ``0x2684``; None for an unknown GPU."""
    number = int(device, 16)
    row: Facts
    for row in lock["architectures"]:
        low, high = (int(bound, 16) for bound in row["ids"])
        if low <= number <= high:
            return row
    return None


def decide(
    facts: Facts,
    lock: Facts,
    engine: str,
    kv_cache_dtype: str = "auto",
    planned_driver: str | None = None,
    requested: Sequence[str] = (),
) -> dict[str, Any]:
    """Decide which GPUs to compute on, and which kernel modules they need.

    Args:
        facts: The output of `zorac-host gpus`.
        lock: The compatibility lock.
        engine: A key of the lock's engines.
        kv_cache_dtype: The data type of the KV cache.
        planned_driver: The version or branch to install; None if the loaded one stays.
        requested: The UUIDs or PCI addresses of the GPUs to compute on; empty to choose one.

    Raises:
        Refused: Something is not compatible; the message says what to change.
    """
    if not facts["cards"] and not facts["gpus"]:
        raise Refused(
            "no NVIDIA GPU found on the PCI bus of this host. Check that the card is seated and powered, and that a "
            "virtual machine gets it passed through: lspci -d 10de: . For a host without a GPU, use the profile cpu.",
            "gpu-missing",
        )
    if engine not in lock["engines"]:
        raise Refused(
            f"the compatibility lock does not list the engine {engine}. Choose one of: {', '.join(lock['engines'])}.",
            "gpu-unknown-engine",
        )
    cards = _known(facts, lock)
    selected = _selected(cards, requested, lock["engines"][engine])
    _check_cards(selected, lock["engines"][engine], engine)
    _check_kv_cache(selected, lock, kv_cache_dtype)
    _check_driver(facts, lock["engines"][engine], engine, planned_driver)
    return {"cards": cards, "selected": selected, "modules": _modules(cards, selected)}


def _known(facts: Facts, lock: Facts) -> list[dict[str, Any]]:
    """The GPUs with their generation. The values of a working driver override the table."""
    by_address = {gpu["address"]: gpu for gpu in facts["gpus"]}
    cards = []
    for card in facts["cards"] or [{"address": address, "device": None} for address in by_address]:
        row = generation(lock, card["device"]) if card["device"] else None
        gpu = by_address.get(card["address"], {})
        compute = gpu.get("compute") or (row["compute"] if row else None)
        if compute is None:  # an old GPU may drive the monitor beside one that computes
            continue
        cards.append(
            {
                "address": card["address"],
                "uuid": gpu.get("uuid"),
                "name": gpu.get("name") or f"{row['name'] if row else 'NVIDIA'} card at {card['address']}",
                "compute": compute,
                "modules": row["modules"] if row else "open",
                "total_mib": gpu.get("total_mib"),
                "reserved_mib": gpu.get("reserved_mib"),
                "monitor": card["address"] in facts["monitors"],
            }
        )
    if not cards:
        unknown = ", ".join(f"{card['address']} (device {card['device']})" for card in facts["cards"])
        raise Refused(
            f"no GPU of this host is in the compatibility lock: {unknown}. No driver works that could identify it. "
            "Install its driver by hand, then re-run the command.",
            "gpu-unknown",
        )
    return cards


def _modules(cards: Sequence[Facts], selected: Sequence[Facts]) -> str:
    """The kind of kernel modules that supports every GPU; at least those that compute."""
    if any(card["modules"] == "open-only" for card in selected):
        return "open"
    return "proprietary" if any(card["modules"] == "proprietary" for card in cards) else "open"


def _selected(cards: Sequence[Facts], requested: Sequence[str], engine: Facts) -> list[Facts]:
    """The requested GPUs; otherwise the most suitable: supported, without a monitor, large, new."""
    if not requested:
        return [
            min(
                cards,
                key=lambda card: (
                    bool(engine["compute"]) and version(card["compute"]) < version(engine["compute"]),
                    card["monitor"],
                    -(card["total_mib"] or 0),
                    [-number for number in version(card["compute"])],
                    card["address"],
                ),
            )
        ]
    by_name = {name: card for card in cards for name in (card["address"], card["uuid"]) if name}
    for name in requested:
        if name not in by_name:
            available = "; ".join(f"{card['name']}: {card['address']} {card['uuid'] or ''}".strip() for card in cards)
            raise Refused(
                f"gpu_compatibility_cards names {name}, but this host has no such GPU. It has: "
                f"{available}. Name a GPU by its UUID or its PCI address.",
                "gpu-not-found",
            )
    return [by_name[name] for name in requested]


def _check_cards(selected: Sequence[Facts], engine: Facts, name: str) -> None:
    needed = engine["compute"]
    for card in selected:
        if needed and version(card["compute"]) < version(needed):
            raise Refused(
                f"{card['name']} has compute capability {card['compute']}, but the engine {name} needs {needed} or "
                "newer. Use another GPU, or the profile cpu.",
                "gpu-too-old",
            )


def _check_kv_cache(selected: Sequence[Facts], lock: Facts, dtype: str) -> None:
    needed = lock["fp8_kv_cache"]["compute"]
    for card in selected:
        if dtype.startswith("fp8") and version(card["compute"]) < version(needed):
            raise Refused(
                f"vllm_kv_cache_dtype is {dtype}, which needs compute capability {needed}, but {card['name']} has "
                f"{card['compute']}. Set vllm_kv_cache_dtype: auto, and halve vllm_max_model_len.",
                "kv-dtype-unsupported",
            )


def _check_driver(facts: Facts, engine: Facts, name: str, planned: str | None) -> None:
    needed, loaded = engine["driver"], facts["driver"]["loaded"]
    driver = planned or loaded
    if not needed:
        return
    if driver is None:
        raise Refused(
            f"no NVIDIA driver is loaded: {facts['smi_error']}. The engine {name} (CUDA "
            f"{engine['cuda']}) needs {needed} or newer. Install one, then re-run the command.",
            "driver-missing",
        )
    # A branch, such as "580", stands for its newest version.
    if version(driver) < version(needed)[: len(version(driver))]:
        cure = (
            "Set nvidia_driver_source: nvidia, and nvidia_driver_branch to a newer one"
            if planned
            else "zorac-deploy did not install it, and leaves it alone. Upgrade it the way it was installed. Or remove "
            "it (packages: sudo apt-get purge '*nvidia*'), reboot, and re-run the command: zorac-deploy installs one"
        )
        raise Refused(
            f"the engine {name} (CUDA {engine['cuda']}) needs driver {needed} or newer; "
            f"{'the planned driver' if planned else 'the loaded driver'} is {driver}. {cure}.",
            "driver-too-old",
        )


def check_memory(facts: Facts, selected: Sequence[Facts], utilization: float, units: Collection[str]) -> None:
    """Require that the GPU has as much free memory as the engine will request.

    vLLM refuses to start unless `utilization` times the GPU's memory is free. What `units`, our own engines, use now
    counts as free. A GPU of unknown memory size passes.

    Raises:
        Refused: Other processes use too much; the message names them and the largest share that fits.
    """
    gpus = {gpu["address"]: gpu for gpu in facts["gpus"]}
    for card in selected:
        gpu = gpus.get(card["address"], {})
        holders = [holder for holder in facts["holders"] if holder["gpu"] == card["uuid"]]
        used_by_engine = [holder["used_mib"] for holder in holders if holder["unit"] in units]
        if not gpu.get("total_mib") or gpu["used_mib"] is None or None in used_by_engine:
            continue
        others = max(gpu["used_mib"] - sum(used_by_engine), 0)
        fits = (gpu["total_mib"] - others) / gpu["total_mib"]
        if fits < utilization:
            named = ", ".join(
                f"{holder['name']} ({holder['unit'] or 'process ' + str(holder['pid'])}"
                f"{'' if holder['used_mib'] is None else ', ' + str(holder['used_mib']) + ' MiB'})"
                for holder in holders
                if holder["unit"] not in units
            )
            raise Refused(
                f"vllm_gpu_memory_utilization is {utilization}: it needs {round(utilization * gpu['total_mib'])} of "
                f"the {gpu['total_mib']} MiB of {card['name']}, but other processes use {others}: "
                f"{named or 'the driver names none'}. Stop them, or set vllm_gpu_memory_utilization to at most "
                f"{int(fits * 100) / 100}.",
                "gpu-memory-held",
            )
