"""Detect an engine that hangs, restart it, and roll back if that does not help.

A timer starts a short check every minute, which stores its state. Times are in the kernel's clock since boot, which
does not jump.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zorac_host import activation, diagnosis, engine_log, proof, service, store
from zorac_host.service import Failure
from zorac_host.store import Generation

_BACK_OFF_SECONDS = 60.0
# Ends after which systemd restarts the engine, one by one.
_ENDS, _ENDS_SECONDS = 3, 3600.0
# So many in a row need a user.
_LIMIT = 5
# After so many restarts, the next failure is rolled back.
_PATIENCE = 2
# After serving so long, a restart counts as successful.
_FORGET_SECONDS = 6 * 3600.0


def look(idle_seconds: float, stall_seconds: float, answer_seconds: float) -> str:
    """Check once, and act. Return a message.

    Args:
        idle_seconds: How long an engine may be idle before it gets a test request.
        stall_seconds: How long an engine with requests may generate no token before it counts as hung.
        answer_seconds: The limit for an answer.
    """
    target = store.current()
    if target is None or store.pending():
        return "nothing to check"
    state, now = _last_state(), time.monotonic()
    unit = service.shown(target.unit)
    reason = _ended(state, now, unit)
    if not reason and unit.get("ActiveState") != "active":
        store.set_watch(state)
        return f"{target.unit} is {unit.get('ActiveState')}"
    if not reason:
        try:
            message = _alive(target, state, now, idle_seconds, stall_seconds, answer_seconds)
        except proof.KeyRefused as refused:  # the engine works, and the user decides about a restart
            doubt = f"{refused}. Restart it with: zorac-deploy up"
            store.set_watch({**state, "doubt": doubt})
            return f"check failed: {doubt}"
        except Failure as failure:
            if not state["doubt"]:  # the first failure may be chance
                store.set_watch({**state, "doubt": str(failure)})
                return f"check failed: {failure}"
            reason = str(failure)
    if reason:
        return _help(target, state, now, reason)
    if state["helped"] and now - state["helped"][-1] > _FORGET_SECONDS:
        state["helped"] = []
    start = unit.get("InvocationID", "")
    if start != state.get("start"):  # started by systemd, a user or the boot: an activation reads the log itself
        _keep_logged(target)
    store.set_watch({**state, "start": start, "doubt": "", "gave_up": ""})
    return message


def _keep_logged(target: Generation) -> None:
    """Store what the running engine logged at its start, if the journal still has it."""
    logged = engine_log.read(service.journal(target.unit, "").splitlines())
    if logged:
        store.add_to_outcome(target.number, {"engine": logged})


def _last_state() -> dict[str, Any]:
    """The state of the last check; a new boot resets it, with the kernel's clock."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    state = store.watch()
    if state.get("boot") != boot:
        now = time.monotonic()
        state = {
            "boot": boot,
            "helped": [],
            "ends": [[now, 0]],
            "tokens": None,
            "moved": now,
            "doubt": "",
            "gave_up": "",
        }
    return state


def _ended(state: dict[str, Any], now: float, unit: Mapping[str, str]) -> str:
    """Why an engine that keeps ending needs help; empty if it does not."""
    if unit.get("ActiveState") == "failed":
        return "the engine failed repeatedly, and systemd gave up"
    if unit.get("ActiveState") in (
        "inactive",
        "deactivating",
    ):  # by hand: systemd still counts earlier restarts
        return ""
    ends = int(unit.get("NRestarts") or 0)  # since the last activation, or a user's start
    recent = [end for end in state["ends"] if now - end[0] < _ENDS_SECONDS and end[1] <= ends] or [[now, ends]]
    state["ends"] = recent if ends == recent[-1][1] else [*recent, [now, ends]]
    count = ends - recent[0][1]
    return f"the engine ended {count} times within an hour" if count >= _ENDS else ""


def _alive(
    target: Generation,
    state: dict[str, Any],
    now: float,
    idle_seconds: float,
    stall_seconds: float,
    answer_seconds: float,
) -> str:
    """The sign of life of the engine. Raises Failure without one."""
    progress = proof.progress(target.manifest, answer_seconds)
    busy, tokens = progress if progress else (False, None)
    if tokens is not None and tokens != state["tokens"]:
        state.update(tokens=tokens, moved=now)
        return "the engine generates tokens"
    quiet = now - state["moved"]
    if busy:
        if quiet > stall_seconds:
            raise Failure(f"the engine has requests, but generated no token for {quiet:.0f} s")
        return "the engine has requests"
    if quiet < idle_seconds and not state["doubt"]:
        return "the engine is idle"
    proof.one_token(target.manifest, answer_seconds)
    state["moved"] = now
    return "the engine is idle and answers"


def _explained(target: Generation, reason: str) -> str:
    """The reason with the cause that the journal shows, if it shows one."""
    shown = diagnosis.brief(diagnosis.of_journal(service.journal(target.unit, "")))
    return f"{reason}. Its journal shows: {'; '.join(shown)}" if shown else reason


def _help(target: Generation, state: dict[str, Any], now: float, reason: str) -> str:
    """Restart the engine; if that does not help, or not for long, roll back to the last good generation."""
    helped = state["helped"]
    if len(helped) >= _LIMIT:
        reason = state["gave_up"] or _explained(target, reason)
        store.set_watch({**state, "gave_up": reason})
        return f"gave up after {_LIMIT} restarts: {reason}"
    wait = _BACK_OFF_SECONDS * 2 ** len(helped)
    if helped and now - helped[-1] < wait:
        return f"waits {wait:.0f} s after the last restart: {reason}"
    reason = _explained(target, reason)
    store.set_watch({**state, "helped": [*helped, now], "ends": [[now, 0]], "tokens": None, "moved": now, "doubt": ""})
    good = store.last_good(target.number) if len(helped) >= _PATIENCE else None
    if good:
        activation.begin(good.number, activation.WATCHDOG)
        return f"rolls back to generation {good.number}: {reason}"
    activation.begin(target.number, activation.WATCHDOG, restart=True)
    return f"restarts the engine: {reason}"
