"""Tell a live engine from one that only says so, restart it, and know when to give up.

A look is short and keeps what it saw: a timer starts one every minute. Times are the kernel's own count since the boot,
so that a clock that jumps means nothing.
"""

import time
from pathlib import Path
from typing import Any

from zorac_host import activation, proof, service, store
from zorac_host.service import Failure
from zorac_host.store import Generation

_ANSWER_SECONDS = 30.0
_BACK_OFF_SECONDS = 60.0
# As many in a row help nobody: what is broken needs a person.
_LIMIT = 5
# An engine that has served for so long was not helped in vain.
_FORGET_SECONDS = 6 * 3600.0


def look(idle_seconds: float, stall_seconds: float) -> str:
    """Look once, and act. What was found, in words.

    Args:
        idle_seconds: How long an engine may do nothing before it is asked for a token.
        stall_seconds: How long an engine with requests may go without a token before it counts as hung.
    """
    target = store.current()
    if target is None or store.pending():
        return "nothing to look at"
    kept, now = _kept(), time.monotonic()
    state = service.shown(target.unit).get("ActiveState")
    try:
        if state == "failed":
            raise Failure("the engine ended again and again, and systemd gave up")
        if state != "active":
            return f"{target.unit} is {state}"
        found = _alive(target, kept, now, idle_seconds, stall_seconds)
    except Failure as failure:
        # Once may be chance: an engine that runs is asked twice.
        if state == "active" and not kept.get("doubt"):
            store.set_watch({**kept, "doubt": str(failure)})
            return f"in doubt: {failure}"
        return _help(target, kept, now, str(failure))
    if kept["helped"] and now - kept["helped"][-1] > _FORGET_SECONDS:
        kept["helped"] = []
    store.set_watch({**kept, "doubt": "", "gave_up": ""})
    return found


def _kept() -> dict[str, Any]:
    """What the last look kept; after a boot the count of seconds begins anew, and so does this."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    kept = store.watch()
    if kept.get("boot") != boot:
        kept = {"boot": boot, "helped": [], "tokens": None, "moved": time.monotonic(), "doubt": "", "gave_up": ""}
    return kept


def _alive(target: Generation, kept: dict[str, Any], now: float, idle_seconds: float, stall_seconds: float) -> str:
    """What shows that the engine lives. Raises Failure if it does not."""
    seen = proof.progress(target.about, _ANSWER_SECONDS)
    busy, tokens = seen if seen else (False, None)
    if tokens is not None and tokens != kept["tokens"]:
        kept.update(tokens=tokens, moved=now)
        return "it makes tokens"
    quiet = now - kept["moved"]
    if busy:
        if quiet > stall_seconds:
            raise Failure(f"it has requests, and made no token for {quiet:.0f} s")
        return "it has requests"
    if quiet < idle_seconds and not kept["doubt"]:
        return "it is idle"
    proof.one_token(target.about, _ANSWER_SECONDS)
    kept["moved"] = now
    return "it is idle, and answers"


def _help(target: Generation, kept: dict[str, Any], now: float, reason: str) -> str:
    """Start the engine again, by an activation that goes back to the last good generation if that does not help."""
    helped = kept["helped"]
    if len(helped) >= _LIMIT:
        store.set_watch({**kept, "gave_up": reason})
        return f"gave up after {_LIMIT} restarts: {reason}"
    wait = _BACK_OFF_SECONDS * 2 ** len(helped)
    if helped and now - helped[-1] < wait:
        return f"waits {wait:.0f} s after the last restart: {reason}"
    store.set_watch({**kept, "helped": [*helped, now], "tokens": None, "moved": now, "doubt": ""})
    activation.begin(target.number, activation.WATCHDOG, restart=True)
    return f"restarts it: {reason}"
