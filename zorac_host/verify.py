"""Compare the host with its document, the desired state, and report what differs.

The document is written as the last step, when everything is applied. A run first removes the inputs from it, so that a
killed run does not look finished.
"""

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from zorac_host import Fault, kinds, lock, proof, service, store, tree
from zorac_host.kinds import Difference

SCHEMA = 1
DOCUMENT = store.STATE / "state.json"
_LIMIT_BYTES = 16 * 2**20


class Unusable(Fault):
    """There is no document to compare with, or it cannot be recorded; the message says why."""


def read() -> dict[str, Any]:
    """The document applied last to this host.

    Raises:
        Unusable: It is missing, damaged, of another schema, or another host's.
    """
    try:
        with DOCUMENT.open() as file:
            document = parsed(file.read(_LIMIT_BYTES), str(DOCUMENT))
    except FileNotFoundError:
        raise Unusable("no desired state is recorded on this host yet") from None
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"cannot read {DOCUMENT}: {error}") from None
    if document.get("machine_id") != machine_id():
        raise Unusable(f"{DOCUMENT} was recorded on another machine")
    return document


def parsed(text: str, name: str) -> dict[str, Any]:
    """Parse the document `text`, called `name` in messages.

    Raises:
        Unusable: It is damaged, or of another schema.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"cannot read {name}: {error}") from None
    parts = document.get("parts") if isinstance(document, dict) else None
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and {"owner", "kind"} <= {*part} for part in parts
    ):
        raise Unusable(f"{name} is not a desired state")
    if document.get("schema") != SCHEMA:
        raise Unusable(f"{name} has schema {document.get('schema')!r}, but this program reads {SCHEMA}")
    return dict(document)


def machine_id() -> str:
    """The id of this installation."""
    return Path("/etc/machine-id").read_text().strip()


def apply(document: Mapping[str, Any], check: bool = False) -> dict[str, Any]:
    """Record `document` as applied, as the last step, and return what still differs.

    With differences left, the inputs are not recorded: the next run compares everything.

    Args:
        document: The document. It names the records of directories with many files, which are read or created here.
        check: Only return the differences.
    """
    try:
        before = {part["record"]: part for part in read()["parts"] if part["kind"] == "tree"}
    except Unusable:
        before = {}
    parts = [_described(part, not check, before.get(part.get("record"), {})) for part in document["parts"]]
    remaining = differences(parts, deep=False)
    if not check:
        inputs = "" if remaining else document.get("inputs", "")
        applied = {**document, "parts": parts, "inputs": inputs, "machine_id": machine_id(), "at": int(time.time())}
        store.write(DOCUMENT, json.dumps(applied) + "\n", 0o600)
    return {"differences": [difference.summary() for difference in remaining]}


def _described(part: Mapping[str, Any], create: bool, before: Mapping[str, Any]) -> dict[str, Any]:
    if part["kind"] == "file" and not part.get("sha256"):
        path = Path(part["path"])
        return {**part, **({"sha256": tree.sha256(path)} if path.is_file() else {})}
    if part["kind"] != "tree":
        return dict(part)
    plain = {name: value for name, value in part.items() if name != "renewed"}
    renewed = bool(part.get("renewed")) and create
    return {**plain, **tree.describe(Path(part["path"]), Path(part["record"]), create, renewed, before)}


def note(document: Mapping[str, Any], **changes: object) -> None:
    """Add to the applied document: other inputs, or why the engine needs a restart."""
    store.write(DOCUMENT, json.dumps({**document, **changes}) + "\n", 0o600)


def differences(parts: list[dict[str, Any]], deep: bool) -> list[Difference]:
    """All differences from `parts`, in their order."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for part in parts:
        by_kind.setdefault(str(part.get("kind")), []).append(part)
    all_differences: list[Difference] = []
    for kind, same in by_kind.items():
        look = kinds.LOOKS.get(kind)
        if look is None:
            all_differences += [
                kinds.differs(part, "kind", "known", f"this program does not know {kind}") for part in same
            ]
            continue
        try:
            all_differences += look(same, deep)
        except Exception as error:  # noqa: BLE001 - what cannot be looked at is not as it should be
            all_differences.append(kinds.differs(same[0], "look", "possible", f"{type(error).__name__}: {error}"))
    order = {kinds.named(part): number for number, part in enumerate(parts)}
    return sorted(all_differences, key=lambda difference: order.get(difference.part, len(order)))


def look(deep: bool, inputs: str = "", with_document: bool = False) -> dict[str, Any]:
    """Compare this host with its document.

    Args:
        deep: Also read every byte of engine and model.
        inputs: If the document was applied with these inputs, also send a request to the engine. With others, the
            engine will be restarted anyway.
        with_document: Include the document in the answer.

    Returns:
        ``inputs``, the digest of what was applied, empty for none; ``unusable``, why there is nothing to compare with;
        ``pending``, the activation in progress; ``differences``; ``reply``, if one was requested, with its ``failure``
        and ``seconds``.
    """
    answer: dict[str, Any] = {"inputs": "", "unusable": "", "pending": store.pending() or None, "differences": []}
    try:
        document = read()
    except Unusable as reason:
        return {**answer, "unusable": str(reason)}
    answer |= {"inputs": document.get("inputs", ""), "tool": document.get("tool", ""), "at": document.get("at")}
    if with_document:
        answer["document"] = document
    # the request runs while files are compared
    with ThreadPoolExecutor(1) as pool:
        replied = pool.submit(_reply) if inputs and inputs == document.get("inputs") else None
        with lock.held(shared=True):
            differing = differences(document["parts"], deep) + outdated(document)
        answer["differences"] = [difference.summary() for difference in differing]
        if replied:
            answer["reply"] = replied.result()
    return {**answer, "pending": store.pending() or None}


def outdated(document: Mapping[str, Any]) -> list[Difference]:
    """The difference of an engine that was started before something was restored."""
    reason, current = document.get("restart"), store.current()
    if not reason or current is None:
        return []
    if service.shown(current.unit).get("InvocationID") != reason["invocation"]:
        return []  # it was restarted meanwhile
    owner = next((part["owner"] for part in document["parts"] if part["kind"] == "generation"), "")
    return [
        Difference(owner, "generation", str(current.number), "process", "started as it was deployed", reason["why"])
    ]


def _reply() -> dict[str, Any]:
    current, began = store.current(), time.monotonic()
    if current is None:
        return {"failure": "there is no current generation", "seconds": 0.0}
    try:
        proof.prove(current.manifest, 30)
    except (service.Failure, OSError) as failure:
        return {"failure": str(failure), "seconds": round(time.monotonic() - began, 3)}
    return {"failure": "", "seconds": round(time.monotonic() - began, 3)}
