"""Choose the cards to compute on, and decide whether they, the driver, the engine and the flags go together.

Runs on the controller. Usage: ``compatibility.py FACTS_JSON --engine ENGINE [OPTION …]``, FACTS_JSON being what
nvidia_probe.py printed. Prints what follows as JSON. A fault is one line on standard error, ``[id] message``, and exit
code 1.
"""

import argparse
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

_LOCK = Path(__file__).with_name("compatibility.yml")

Facts = Mapping[str, Any]


class Fault(Exception):
    """What was asked for cannot work on this host."""


def version(text: str) -> tuple[int, ...]:
    """A version as numbers, to be compared."""
    return tuple(int(part) for part in text.split(".") if part.isdecimal())


def generation(lock: Facts, device: str) -> Facts | None:
    """The row of the lock for a card with the PCI id `device`, as in ``0x2684``; None for a card it does not know."""
    number = int(device, 16)
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
    wanted: Sequence[str] = (),
) -> dict[str, Any]:
    """What the host's cards are, which of them to compute on, and which kernel modules they want.

    Args:
        facts: What nvidia_probe.py found.
        lock: What goes together.
        engine: A key of the lock's engines.
        kv_cache_dtype: The type that the KV cache is to be kept in.
        planned_driver: The version or the branch that is going to be installed; None if the loaded one stays.
        wanted: The UUIDs or PCI addresses of the cards to compute on; none to have one chosen.

    Raises:
        Fault: Something does not go together; the message says what to change.
    """
    if not facts["cards"] and not facts["gpus"]:
        raise Fault(
            "[gpu-missing] there is no NVIDIA card on the PCI bus of this host. Is it seated and powered, is it passed "
            "through to this machine? Type: lspci -d 10de: . Without a card, take the profile cpu."
        )
    if engine not in lock["engines"]:
        raise Fault(
            f"[gpu-unknown-engine] the compatibility lock has no row for the engine {engine}. "
            f"Choose one of: {', '.join(lock['engines'])}."
        )
    cards = _known(facts, lock)
    selected = _selected(cards, wanted, lock["engines"][engine])
    _check_cards(selected, lock["engines"][engine], engine)
    _check_kv_cache(selected, lock, kv_cache_dtype)
    _check_driver(facts, lock["engines"][engine], engine, planned_driver)
    return {"cards": cards, "selected": selected, "modules": _modules(cards, selected)}


def _known(facts: Facts, lock: Facts) -> list[dict[str, Any]]:
    """The cards with their generation; what a working driver says of a card goes before the table."""
    seen = {gpu["address"]: gpu for gpu in facts["gpus"]}
    cards = []
    for card in facts["cards"] or [{"address": address, "device": None} for address in seen]:
        row = generation(lock, card["device"]) if card["device"] else None
        gpu = seen.get(card["address"], {})
        compute = gpu.get("compute") or (row["compute"] if row else None)
        if compute is None:  # an old card for the monitor, beside the one that computes
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
        raise Fault(
            f"[gpu-unknown] no card of this host is in the compatibility lock: {unknown}; and no driver works "
            "that could tell what it is. Install its driver by hand and type the same."
        )
    return cards


def _modules(cards: Sequence[Facts], selected: Sequence[Facts]) -> str:
    """The kind of kernel modules that serves every card, and in any case the ones that compute."""
    if any(card["modules"] == "open-only" for card in selected):
        return "open"
    return "proprietary" if any(card["modules"] == "proprietary" for card in cards) else "open"


def _selected(cards: Sequence[Facts], wanted: Sequence[str], engine: Facts) -> list[Facts]:
    """The cards that were asked for; else the one that suits best: able, without a monitor, large, new."""
    if not wanted:
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
    for name in wanted:
        if name not in by_name:
            there = "; ".join(f"{card['name']}: {card['address']} {card['uuid'] or ''}".strip() for card in cards)
            raise Fault(
                f"[gpu-not-found] gpu_compatibility_cards names {name}, and this host has no such card. It has: "
                f"{there}. Name a card by its UUID or its PCI address."
            )
    return [by_name[name] for name in wanted]


def _check_cards(selected: Sequence[Facts], engine: Facts, name: str) -> None:
    needed = engine["compute"]
    for card in selected:
        if needed and version(card["compute"]) < version(needed):
            raise Fault(
                f"[gpu-too-old] the engine {name} has kernels for compute capability {needed} and newer, and "
                f"{card['name']} has {card['compute']}. There is no newer engine for such a card; use another card, "
                "or the profile cpu."
            )


def _check_kv_cache(selected: Sequence[Facts], lock: Facts, dtype: str) -> None:
    needed = lock["fp8_kv_cache"]["compute"]
    for card in selected:
        if dtype.startswith("fp8") and version(card["compute"]) < version(needed):
            raise Fault(
                f"[kv-dtype-unsupported] vllm_kv_cache_dtype is {dtype}, which needs compute capability {needed}, and "
                f"{card['name']} has {card['compute']}. Set vllm_kv_cache_dtype: auto, and half of vllm_max_model_len."
            )


def _check_driver(facts: Facts, engine: Facts, name: str, planned: str | None) -> None:
    needed, loaded = engine["driver"], facts["driver"]["loaded"]
    driver = planned or loaded
    if not needed:
        return
    if driver is None:
        raise Fault(
            f"[driver-missing] no NVIDIA driver is loaded: {facts['smi_error']}. The engine {name} (CUDA "
            f"{engine['cuda']}) needs {needed} or newer. Install one and type the same."
        )
    # A branch, as in "580", stands for its newest version.
    if version(driver) < version(needed)[: len(version(driver))]:
        cure = (
            "Set nvidia_driver_source: nvidia, and nvidia_driver_branch to a newer one"
            if planned
            else "It was not installed by zorac-deploy, which leaves it alone. Upgrade it the way it came, or remove "
            "it (packages: sudo apt-get purge '*nvidia*'), reboot, and type the same: then zorac-deploy installs one"
        )
        raise Fault(
            f"[driver-too-old] the engine {name} (CUDA {engine['cuda']}) needs driver {needed} or newer; "
            f"{'the one to be installed' if planned else 'the one loaded'} is {driver}. {cure}."
        )


def check_memory(facts: Facts, selected: Sequence[Facts], utilization: float, units: Collection[str]) -> None:
    """Require that the engine finds as much free memory as it will ask for.

    vLLM refuses to start unless `utilization` times the card's total is free. What `units`, our own engines, hold now
    counts as free. A card without known memory is let through.

    Raises:
        Fault: Others hold too much; the message names them and the largest share that fits.
    """
    gpus = {gpu["address"]: gpu for gpu in facts["gpus"]}
    for card in selected:
        gpu = gpus.get(card["address"], {})
        holders = [holder for holder in facts["holders"] if holder["gpu"] == card["uuid"]]
        own = [holder["used_mib"] for holder in holders if holder["unit"] in units]
        if not gpu.get("total_mib") or gpu["used_mib"] is None or None in own:
            continue
        others = max(gpu["used_mib"] - sum(own), 0)
        fits = (gpu["total_mib"] - others) / gpu["total_mib"]
        if fits < utilization:
            named = ", ".join(
                f"{holder['name']} ({holder['unit'] or 'process ' + str(holder['pid'])}"
                f"{'' if holder['used_mib'] is None else ', ' + str(holder['used_mib']) + ' MiB'})"
                for holder in holders
                if holder["unit"] not in units
            )
            raise Fault(
                f"[gpu-memory-held] vllm_gpu_memory_utilization is {utilization}, so "
                f"{round(utilization * gpu['total_mib'])} of the {gpu['total_mib']} MiB of {card['name']} must be "
                f"free, and others hold {others}: {named or 'no process that the driver names'}. Stop them, or set "
                f"vllm_gpu_memory_utilization to at most {int(fits * 100) / 100}."
            )


def main() -> None:
    """Print the decision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("facts", type=json.loads)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--driver", default="")
    parser.add_argument("--card", action="append", default=[])
    parser.add_argument("--gpu-memory-utilization", type=float, help="also require this share of the memory to be free")
    parser.add_argument("--units", default="")
    given = parser.parse_args()
    lock = yaml.safe_load(_LOCK.read_text(encoding="utf-8"))
    try:
        found = decide(given.facts, lock, given.engine, given.kv_cache_dtype, given.driver or None, given.card)
        if given.gpu_memory_utilization is not None:
            check_memory(given.facts, found["selected"], given.gpu_memory_utilization, given.units.split(","))
    except Fault as fault:
        sys.exit(str(fault))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
