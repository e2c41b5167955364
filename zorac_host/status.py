"""What runs, the activation in progress, and every generation."""

from typing import Any

from zorac_host import proof, service, store


def read() -> dict[str, Any]:
    """The current generation with its unit and its health, the activation in progress, and every generation."""
    now = store.current()
    found: dict[str, Any] = {
        "current": now.number if now else None,
        "pending": store.pending() or None,
        "watchdog": store.watch(),
        "generations": [{**each.about, "outcome": store.outcome(each.number)} for each in store.generations()],
        "unit": None,
        "health": "",
    }
    if now:
        found["unit"] = service.details(now.unit)
        try:
            proof.health(now.about, 5)
        except service.Failure as failure:
            found["health"] = str(failure)
    return found
