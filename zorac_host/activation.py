"""Activate a generation as one transaction: it ends with the new one verified, or with the old one verified again.

The transaction is recorded before anything is stopped, and its own unit runs it. The caller may end, the unit may be
killed, the host may lose power: the unit is started again and continues from the record.
"""

import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zorac_host import Fault, diagnosis, engine_log, foreign, lock, proof, service, store
from zorac_host.refusal import Refusal
from zorac_host.service import Failure
from zorac_host.store import Generation

UNIT = "zorac-deploy-activate.service"
WATCHDOG = "the watchdog"
# After so many kills during one generation's start, the generation is taken for the cause.
_ATTEMPTS = 3
_TICK_SECONDS = 0.2
_GONE_SECONDS = 10.0
_SPACE_BYTES = 64 * 2**20
_MOST_FINDINGS = 3
_WEIGHTS = ("*.safetensors", "*.gguf")


@dataclass
class _Progress:
    """The progress of an activation.

    Attributes:
        seconds: The times of its parts.
        silent_since: The start of the downtime, in the kernel's clock; None while the old engine serves.
        cursor: The start of the engine's log in the journal; empty if this did not start the engine.
        journal: The engine's log, once read.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    silent_since: float | None = None
    cursor: str = ""
    journal: str = ""

    def answers(self) -> None:
        """Record the end of the downtime."""
        if self.silent_since is not None:
            self.seconds["silent"] = round(time.monotonic() - self.silent_since, 3)


class Busy(Fault):
    """Another activation is in progress."""


def activate(number: int, by: str, key: Path | None, restart: bool, check: bool) -> dict[str, Any]:
    """Activate and verify the generation `number`, and wait for it. Return the result, and whether anything was done.

    Args:
        number: The generation.
        by: The user.
        key: A file with a new API key, which is changed with it.
        restart: Restart the engine even if it runs.
        check: Only say whether there is anything to do.
    """
    wait()
    target = store.generation(number)
    serving = target is not None and service.settled(target)
    # An activation without a waiting caller may have changed it already.
    key = None if key and _in_force(_bytes(key)) else key
    if target and serving and not key and not restart and _answers(target):
        return {"changed": False, "generation": number, **store.outcome(number)}
    if check:
        return {"changed": True, "generation": number}
    # An engine that runs without an answer is restarted: it hangs, or its API key was changed by hand.
    new_key = _bytes(key) if key else b""
    begin(number, by, restart=serving, key=key)
    wait()
    defaults: dict[str, Any] = {"reason": "cannot write the outcome", "lines": [], "previous": None, "back_failure": ""}
    # After a failure with a new key, the same generation serves again with the old key.
    proved = target is not None and service.settled(target) and (not key or _in_force(new_key))
    state = "proved" if proved else "failed"
    return {"changed": True, "generation": number, **defaults, **store.outcome(number), "state": state}


def _bytes(key: Path) -> bytes:
    try:
        return key.read_bytes().strip()
    except OSError:
        return b""


def _in_force(key: bytes) -> bool:
    return key == _bytes(store.KEY_FILE)


def _answers(target: Generation) -> bool:
    """Whether the running engine gives a token."""
    try:
        proof.one_token(target.manifest, 30)
    except Failure:
        return False
    return True


def begin(number: int, by: str, restart: bool = False, key: Path | None = None) -> None:
    """Record the activation of the generation `number`, and start the unit that runs it.

    Args:
        number: The generation.
        by: The user, for others who ask meanwhile.
        restart: Restart the engine even if it runs.
        key: A file with a new API key. It is renamed into place with the activation; a rollback restores the old one.

    Raises:
        Busy: Another activation is in progress.
        Refusal: The generation does not exist, or its unit is not ours.
    """
    target = store.generation(number)
    if target is None:
        numbers = ", ".join(str(generation.number) for generation in store.generations()) or "none"
        raise Refusal(f"generation {number} does not exist. Choose one of: {numbers}.", "generation-unknown")
    if "unit" in target.manifest:  # a description without it fails in the transaction, and is rolled back
        foreign.require_none(target.unit)
    with lock.held():
        other = store.pending()
        if other:
            raise Busy(f"generation {other['target']} is being activated, for {other['by']}")
        current = store.current()
        before = store.outcome(current.number) if current else {}
        proved = before.get("state") == "proved"
        # With a new key, a generation's rollback is the same generation with the old key.
        previous = current if current and proved and (key or current.number != number) else store.last_good(number)
        store.KeyChange().forget()
        if key:
            store.KeyChange().take(key)
        service.enable(UNIT, True)
        store.set_pending(
            {
                "target": number,
                "previous": previous.number if previous else None,
                "by": by,
                "restart": restart,
                "served": current is not None and current.number == number and (proved or before.get("served", False)),
                "key": key is not None,
                "attempts": 0,
                "failure": "",
                "since": int(time.time()),
            }
        )
        service.systemctl("reset-failed", UNIT)
        service.systemctl("start", "--no-block", UNIT)


def wait() -> None:
    """Wait until no activation is in progress; one that has stopped is started again.

    Raises:
        Failure: It cannot be started.
    """
    last_active = time.monotonic()
    while store.pending():
        if service.shown(UNIT).get("ActiveState") == "activating":
            last_active = time.monotonic()
        elif time.monotonic() - last_active > _GONE_SECONDS:
            raise Failure(f"the activation does not continue. See: journalctl --unit {UNIT}")
        else:
            service.systemctl("reset-failed", UNIT)  # otherwise systemd refuses a unit that ended too often
            service.systemctl("start", "--no-block", UNIT)
        time.sleep(_TICK_SECONDS)


def run() -> bool:
    """Do what is recorded, or the rest of it. Return whether an engine is verified at the end."""
    record = store.pending()
    if not record:
        return True
    target = store.generation(record["target"])
    previous = store.generation(record["previous"]) if record["previous"] else None
    progress, rollback, key = _Progress(), _Progress(), store.KeyChange()
    if target and not record["failure"]:
        record["attempts"] += 1
        try:
            if record["attempts"] > _ATTEMPTS:
                raise Failure(f"the host or the activation was killed {_ATTEMPTS} times during the start")
            if not record["restart"]:  # one that ran is recorded already, and a rollback needs the same
                _require_space()
            service.require_free_port(target.manifest, store.units())
            store.set_pending(record)
            _bring_up(target, previous, progress, restart=record["restart"], back=False)
            _judge(target, progress, record)
        except Exception as failure:  # noqa: BLE001 - whatever it is, an engine that served before serves again
            service.stay_if_host_stops()
            record["failure"] = _reason(failure)
            record["served"] = record.get("served", False) and not isinstance(failure, proof.Open)
            _try(lambda: record.update(lines=_keep_journal(target, progress)))
            if progress.cursor:
                _try(lambda: record.update(engine=_logged(target, progress)))
        else:
            return _end(record, target, "proved", progress)
    _log(f"generation {record['target']} failed: {record['failure']}")
    _try(lambda: store.set_pending(record))
    went_back = False
    if key.is_ahead():
        _try(key.forget)
    if previous:
        _log(f"rolling back to generation {previous.number}")
        try:
            _bring_up(previous, None, rollback, restart=False, back=True)
            progress.answers()
            went_back = True
            _keep_logged(previous, rollback)
        except Exception as failure:  # noqa: BLE001 - see above; no older generation is left
            service.stay_if_host_stops()
            record["back_failure"] = _reason(failure)
            _log(f"generation {previous.number} failed too: {record['back_failure']}")
    elif target and record.get("served"):
        # It stays enabled: what keeps it from starting may pass, as another process that holds the GPU's memory.
        _try(lambda: service.start(target.unit))
    elif target:
        _try(lambda: service.stop(target.unit, lambda: False))
        _try(lambda: service.enable(target.unit, False))
        _try(lambda: store.forget_current(target.unit))
        service.systemctl("daemon-reload")
        _try(lambda: foreign.restore(target.unit))
    _try(key.undo)  # the rollback may not have reached it
    if target and record["failure"] and progress.cursor:  # now, for it takes seconds
        _try(lambda: record.update(_diagnosed(target, record["failure"])))
    if target:
        same = went_back and previous is not None and previous.number == target.number
        _end(record, target, "proved" if same else "failed", progress)
    else:
        _end_record()
    return went_back


def _bring_up(target: Generation, previous: Generation | None, progress: _Progress, restart: bool, back: bool) -> None:
    """Make `target` current, start and verify it, with the rollback to `previous` prepared.

    `progress` records the progress. A new API key is changed with it; on the way `back` the old one is restored.
    """
    key = store.KeyChange()
    manifest, current = target.manifest, store.current()
    active = service.shown(target.unit).get("ActiveState") in ("active", "activating")
    serving = (
        current is not None
        and current.number == target.number
        and active
        and service.running(target.unit) == target.number
    )
    serving = serving and service.in_place(target)
    own_start = restart or not serving or (key.is_made() if back else key.is_ahead())
    if own_start:
        if files := foreign.look(target.unit):
            raise Failure(str(foreign.refusal(target.unit, files)))
        flip = store.Flip(target)
        if previous:
            store.Flip(previous)
        if not back:
            key.prepare()
        if current:
            _warm(manifest, current)
        progress.silent_since = last = time.monotonic()

        def took(part: str) -> None:
            nonlocal last
            progress.seconds[part], last = round(time.monotonic() - last, 3), time.monotonic()

        units = {unit for unit in store.units() if not foreign.look(unit)} | {target.unit}
        former = {pid for unit in units for pid in service.processes(unit)}
        for unit in units:
            service.stop(unit, lambda: proof.idle(current.manifest if current else manifest))
        took("stop")
        foreign.remove(target.unit)
        (key.undo if back else key.make)()
        flip.apply(units)
        service.systemctl("daemon-reload")
        service.wait_for_memory(former)
        service.require_free_port(manifest)
        took("memory")
        for other in units - {target.unit}:
            service.enable(other, False)
        progress.cursor = service.cursor()
        service.start(target.unit)
    last = time.monotonic()
    # An engine that systemd already restarts, for example after the kernel killed it, is not a failure of this start.
    service.wait_until_serving(target.unit, float(manifest["start_timeout_seconds"]), patient=back or not own_start)
    progress.seconds["start"], last = round(time.monotonic() - last, 3), time.monotonic()
    # What was verified before may serve again, even if an earlier zorac-deploy left routes of it open.
    proof.prove(manifest, float(manifest["proof_timeout_seconds"]), closed=not (back or restart))
    progress.seconds["proof"] = round(time.monotonic() - last, 3)
    progress.answers()


def _require_space() -> None:
    """Require space for what an engine writes at its start, before the old one is stopped."""
    free = shutil.disk_usage(store.STATE).free
    if free < _SPACE_BYTES:
        raise Failure(f"{free >> 20} MiB are free under {store.STATE}, but {_SPACE_BYTES >> 20} MiB are needed")


def _warm(manifest: Mapping[str, Any], current: Generation) -> None:
    """Read the program and the weights into the page cache while the old engine still serves."""
    if current.manifest["engine_path"] != manifest["engine_path"]:
        service.load(manifest["warm"])
    weights = sorted(path for kind in _WEIGHTS for path in Path(manifest["model_path"]).glob(kind))
    if sum(path.stat().st_size for path in weights) < os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        service.load(["cat", *map(str, weights)])


def _end(record: dict[str, Any], target: Generation, state: str, progress: _Progress) -> bool:
    """Record the result, and enable the verified unit at boot. Return whether `target` is verified."""
    _try(
        lambda: store.set_outcome(
            target.number,
            {
                "state": state,
                "at": int(time.time()),
                "by": record["by"],
                "previous": record["previous"],
                "served": record.get("served", False),
                "reason": record["failure"],
                "key": record.get("key", False),
                "back_failure": record.get("back_failure", ""),
                "cause": record.get("cause", ""),
                "lines": record.get("lines", []),
                "diagnosis": record.get("diagnosis", []),
                "engine": record.get("engine", {}),
                "seconds": progress.seconds,
            },
        )
    )
    current = store.current()
    if current:
        _try(lambda: service.enable(current.unit, True))
    if record["by"] != WATCHDOG:
        _try(lambda: store.set_watch({}))
    _try(store.tidy)
    _try(store.KeyChange().forget)
    _end_record()
    _log(f"generation {target.number} is {state}")
    return state == "proved"


def _end_record() -> None:
    """Remove the record first, and then what a power cut would continue."""
    with lock.held():
        store.end_pending()
        service.enable(UNIT, False)


def _judge(target: Generation, progress: _Progress, record: dict[str, Any]) -> None:
    """Require by its log that the engine is as planned.

    A rollback does not: what served before may serve again.
    """
    record["engine"] = _logged(target, progress)
    refusal = engine_log.judge(record["engine"], target.manifest.get("plan"))
    if refusal:
        record["cause"] = refusal.cause
        raise Failure(refusal.message)


def _logged(target: Generation, progress: _Progress) -> dict[str, Any]:
    """What the engine logged in this start."""
    return engine_log.read(_journal(target, progress).splitlines())


def _keep_logged(target: Generation, progress: _Progress) -> None:
    """Store what the engine logged with a generation that was verified before, if this started it."""
    if progress.cursor:
        _try(lambda: store.add_to_outcome(target.number, {"engine": _logged(target, progress)}))


def _keep_journal(target: Generation, progress: _Progress) -> list[str]:
    """Store the engine's log with its generation, and return the decisive lines."""
    text = _journal(target, progress)
    _try(lambda: store.write(target.journal, text, 0o640))
    return service.decisive(text)


def _diagnosed(target: Generation, failure: str) -> dict[str, Any]:
    """The likely causes of a failed start, by its journal and the failure, and the best as the lines that matter."""
    findings = diagnosis.of_journal(f"{target.journal.read_text(errors='replace')}\n{failure}")
    record = {"diagnosis": [finding.summary() for finding in findings[:_MOST_FINDINGS]]}
    lines = [line for line in diagnosis.brief(findings) if line != failure]
    return {**record, "lines": lines} if lines else record


def _journal(target: Generation, progress: _Progress) -> str:
    """The engine's log since its start, read once."""
    progress.journal = progress.journal or service.journal(target.unit, progress.cursor)
    return progress.journal


def _try(action: Callable[[], object]) -> None:
    """Do what may fail: the transaction has to end in any case, even on a full disk."""
    try:
        action()
    except Exception as error:  # noqa: BLE001 - see above
        _log(_reason(error))


def _reason(error: Exception) -> str:
    """The reason to show. An unexpected error may quote a secret: its message is only in root's journal."""
    if isinstance(error, (Failure, OSError)):
        return str(error)
    traceback.print_exception(error)
    return f"the host program failed with {type(error).__name__}. See: journalctl --unit {UNIT}"


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
