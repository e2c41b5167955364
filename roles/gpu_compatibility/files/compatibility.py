"""Decide whether the cards, the driver, the engine and the flags go together, and print what follows from them.

Runs on the controller. Usage: ``compatibility.py FACTS_JSON --engine ENGINE [--kv-cache-dtype D] [--driver VERSION]``,
FACTS_JSON being what nvidia_probe.py printed. A fault is one line on standard error, ``[id] message``, exit code 1.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
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
    for row in lock["generations"]:
        low, high = (int(bound, 16) for bound in row["ids"])
        if low <= number <= high:
            return row
    return None


def decide(facts: Facts, lock: Facts, engine: str, kv_cache_dtype: str, planned_driver: str | None) -> dict[str, Any]:
    """What the host's cards are, and which kernel modules they want.

    Raises:
        Fault: Something does not go together; the message says what to change.
    """
    if not facts["cards"] and not facts["gpus"]:
        raise Fault(
            "[gpu-missing] there is no NVIDIA card on the PCI bus of this host. Is it seated and powered, is it passed "
            "through to this machine? Type: lspci -d 10de: . Without a card, take the profile cpu."
        )
    cards = _known(facts, lock)
    if engine not in lock["engines"]:
        raise Fault(
            f"[gpu-unknown-engine] the compatibility lock has no row for the engine {engine}. "
            f"Choose one of: {', '.join(lock['engines'])}."
        )
    _check_cards(cards, lock["engines"][engine], engine)
    _check_kv_cache(cards, lock, kv_cache_dtype)
    _check_driver(facts, lock["engines"][engine], engine, planned_driver)
    modules = "proprietary" if any(card["modules"] == "proprietary" for card in cards) else "open"
    return {"cards": cards, "modules": modules}


def _known(facts: Facts, lock: Facts) -> list[dict[str, Any]]:
    """The cards with their generation; what a working driver says of a card goes before the table."""
    seen = {gpu["address"]: gpu for gpu in facts["gpus"]}
    cards = []
    for card in facts["cards"] or [{"address": address, "device": None} for address in seen]:
        row = generation(lock, card["device"]) if card["device"] else None
        gpu = seen.get(card["address"], {})
        compute = gpu.get("compute") or (row["compute"] if row else None)
        if compute is None:
            raise Fault(
                f"[gpu-unknown] the card at {card['address']} (device {card['device']}) is not in the compatibility "
                "lock, and no driver works that could tell what it is. Install its driver by hand and type the same."
            )
        cards.append(
            {
                "address": card["address"],
                "name": gpu.get("name") or f"{row['name'] if row else 'NVIDIA'} card at {card['address']}",
                "compute": compute,
                "modules": row["modules"] if row else "open",
            }
        )
    return cards


def _check_cards(cards: Sequence[Facts], engine: Facts, name: str) -> None:
    needed = engine["compute"]
    if needed and not any(version(card["compute"]) >= version(needed) for card in cards):
        found = ", ".join(f"{card['name']} with {card['compute']}" for card in cards)
        raise Fault(
            f"[gpu-too-old] the engine {name} has kernels for compute capability {needed} and newer, and this host has "
            f"{found}. There is no newer engine for such a card; use another card, or the profile cpu."
        )


def _check_kv_cache(cards: Sequence[Facts], lock: Facts, dtype: str) -> None:
    needed = lock["fp8_kv_cache"]["compute"]
    best = max(cards, key=lambda card: version(card["compute"]))
    if dtype.startswith("fp8") and version(best["compute"]) < version(needed):
        raise Fault(
            f"[kv-dtype-unsupported] vllm_kv_cache_dtype is {dtype}, which needs compute capability {needed}, and "
            f"{best['name']} has {best['compute']}. Set vllm_kv_cache_dtype: auto, and half of vllm_max_model_len."
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
    if version(driver) < version(needed):
        raise Fault(
            f"[driver-too-old] the engine {name} (CUDA {engine['cuda']}) needs driver {needed} or newer; "
            f"{'the one to be installed' if planned else 'the one loaded'} is {driver}. Take a newer branch."
        )


def main() -> None:
    """Print the decision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("facts")
    parser.add_argument("--engine", required=True)
    parser.add_argument("--kv-cache-dtype", default="auto")
    parser.add_argument("--driver", default="")
    arguments = parser.parse_args()
    lock = yaml.safe_load(_LOCK.read_text(encoding="utf-8"))
    try:
        print(
            json.dumps(
                decide(
                    json.loads(arguments.facts),
                    lock,
                    arguments.engine,
                    arguments.kv_cache_dtype,
                    arguments.driver or None,
                )
            )
        )
    except Fault as fault:
        sys.exit(str(fault))


if __name__ == "__main__":
    main()
