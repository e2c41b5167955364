"""What runs, the activation in progress, and every generation."""

from typing import Any

from zorac_host import proof, service, store


def read() -> dict[str, Any]:
    """The current generation with its unit and its health, the activation in progress, and every generation."""
    current = store.current()
    answer: dict[str, Any] = {
        "current": current.number if current else None,
        "pending": store.pending() or None,
        "watchdog": store.watch(),
        "generations": [
            {**generation.manifest, "outcome": store.outcome(generation.number)} for generation in store.generations()
        ],
        "unit": None,
        "health": "",
    }
    if current:
        answer["unit"] = service.details(current.unit)
        try:
            proof.health(current.manifest, 5)
        except service.Failure as failure:
            answer["health"] = str(failure)
    return answer
