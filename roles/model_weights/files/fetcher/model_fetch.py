"""Download a model into a directory that appears when it is complete, despite interruptions.

It runs on the host in its own unit, see fetch_unit.py, and needs only Python. model_download.py downloads, in a
watched child process: one without progress is killed, and another resumes.
Usage: ``model_fetch.py JOB``.

JOB is a JSON file:
    path: The final directory.
    replaced: The new name for a damaged directory at `path`, once the download is complete; empty keeps a directory
        there.
    manifest: The files: ``source``, ``bytes``, and ``files`` with ``size`` and ``sha256``. Stored in the directory.
    urls: The address of each file.
    hub: Whether the addresses are of a Hugging Face hub.
    python: The Python for the download, with huggingface_hub.
    environment: Environment variables for the download.
    progress: The file for the progress.
    stall_seconds: How long a try may go without progress.
    tries: How many tries in a row may go without progress.
    pause_seconds: The pause after the first try without progress; it doubles each time.
"""

import collections
import contextlib
import errno
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path, PurePosixPath
from typing import Any

RECORD = ".zorac-deploy.json"
_DOWNLOAD = Path(__file__).with_name("model_download.py")
_LONGEST_PAUSE_SECONDS = 60
_START_SECONDS = 60  # for Python to import the client, on a busy machine
_GIB, _MIB = 2**30, 2**20


class Refusal(Exception):
    """The download cannot succeed. The second argument is the refusal's id."""


class Fetch:
    """The download of one model."""

    def __init__(self, job_file: Path) -> None:
        self._job_file = job_file
        self._job: dict[str, Any] = json.loads(job_file.read_text())
        self._manifest = self._job["manifest"]
        self._path = Path(self._job["path"])
        self._partial = self._path.with_name(f"{self._path.name}.partial")
        self._tries = 0
        self._seen: collections.deque[tuple[float, int]] = collections.deque(maxlen=10)

    def run(self) -> None:
        """Download the directory.

        Raises:
            Refusal: The download cannot succeed.
        """
        if self._job.get("replaced") or not self._path.exists():
            self._prepare()
            self._download()
            self._publish()
        self._tell("done", "complete")

    def refuse(self, message: str, refusal: str) -> None:
        """Report why the download ended."""
        self._tell("refused", message, refusal)

    def _prepare(self) -> None:
        """Create the partial directory, remove unknown files from it, and require space for the rest."""
        for name in self._manifest["files"]:
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or any(part[0] == "." for part in path.parts):
                message = f"{self._manifest['source']} names a file outside its directory: {name}. Use another model."
                raise Refusal(message, "model-unsafe")
        self._partial.mkdir(parents=True, exist_ok=True)
        for path in list(self._partial.rglob("*")):
            if path.is_symlink() or (path.is_file() and not self._belongs(path)):
                path.unlink()
        _write(self._partial / RECORD, json.dumps(self._manifest, indent=2) + "\n")
        missing, free = self._manifest["bytes"] - self._have(), shutil.disk_usage(self._partial).free
        if missing > free:
            raise Refusal(
                f"{missing / _GIB:.1f} GiB of {self._path.name} are missing, but {self._partial.parent} has "
                f"{free / _GIB:.1f} GiB free. Free some space, then re-run the command.",
                "model-no-space",
            )

    def _belongs(self, path: Path) -> bool:
        name = str(path.relative_to(self._partial).with_name(path.name.removeprefix(".").removesuffix(".part")))
        return name in self._manifest["files"]

    def _have(self) -> int:
        """The bytes present; of a sparse file, the allocated ones."""
        found = 0
        for path in self._partial.rglob("*"):
            try:
                stat = path.lstat()
            except FileNotFoundError:  # renamed meanwhile
                continue
            if path.name != RECORD and path.is_file() and ".hub" not in path.parts:
                found += min(stat.st_size, stat.st_blocks * 512)
        return min(found, self._manifest["bytes"])

    def _download(self) -> None:
        best, failures = -1, 0
        while True:
            self._tries += 1
            outcome = self._attempt()
            if outcome["outcome"] == "done":
                return
            if outcome["outcome"] == "refused":
                raise Refusal(outcome["message"], outcome["refusal"])
            now = self._have()
            failures = 0 if now > best else failures + 1
            best = max(best, now)
            if failures >= self._job["tries"]:
                raise Refusal(
                    f"cannot download {self._manifest['source']}: {outcome['message']}. {self._tries} tries; "
                    f"{now / _GIB:.1f} GiB are stored. Re-run the command to resume.",
                    "model-unreachable",
                )
            # An interrupted try with progress is repeated without a pause.
            patience = min(self._job["pause_seconds"] * 2 ** (failures - 1), _LONGEST_PAUSE_SECONDS) if failures else 0
            self._wait(outcome.get("wait_seconds") or patience, outcome["message"])

    def _attempt(self) -> dict[str, Any]:
        """Run one download, and return its result."""
        environment = {
            "PATH": "/usr/bin:/bin",
            "HF_HOME": str(self._partial / ".hub"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "CREDENTIALS_DIRECTORY": os.environ.get("CREDENTIALS_DIRECTORY", ""),
            **self._job["environment"],
        }
        if self._tries > 1:
            environment["HF_HUB_DISABLE_XET"] = "1"
        command = [self._job["python"], "-I", str(_DOWNLOAD), str(self._job_file), str(self._partial)]
        child = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True)
        try:
            said = self._watched(child)
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if said is None:
            return {"outcome": "again", "message": f"no data for {self._job['stall_seconds']} s"}
        try:
            return dict(json.loads(said.splitlines()[-1]))
        except (ValueError, IndexError):
            return {"outcome": "again", "message": f"the download ended with exit code {child.returncode}"}

    def _watched(self, child: subprocess.Popen[bytes]) -> bytes | None:
        """The output of `child`; None if it stalls: no output and no bytes on disk."""
        assert child.stdout is not None  # noqa: S101 - a pipe was asked for
        look = time.monotonic()
        said, have, alive = b"", -1, look + _START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while True:
                if selector.select(timeout=1):
                    chunk = os.read(child.stdout.fileno(), 65536)
                    if not chunk:
                        return said
                    said, alive = (said + chunk)[-65536:], time.monotonic()
                if time.monotonic() < look:
                    continue
                look = time.monotonic() + 1
                self._tell("fetching", "")
                if said and self._seen[-1][1] != have:
                    have, alive = self._seen[-1][1], time.monotonic()
                if time.monotonic() - alive > self._job["stall_seconds"]:
                    return None

    def _wait(self, seconds: float, why: str) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._tell("waiting", f"{why}; next try in {left:.0f} s")
            time.sleep(min(left, 1))

    def _publish(self) -> None:
        """Rename the directory into place. All its files are verified and forced to the disk."""
        shutil.rmtree(self._partial / ".hub", ignore_errors=True)
        there = {str(path.relative_to(self._partial)) for path in self._partial.rglob("*") if not path.is_dir()}
        if there != {*self._manifest["files"], RECORD}:
            message = f"{self._partial} was changed during the download. Remove it, then re-run the command."
            raise Refusal(message, "model-damaged")
        for folder in (*(path for path in self._partial.rglob("*") if path.is_dir()), self._partial):
            _sync(folder)
        if self._job.get("replaced") and self._path.exists():
            self._path.rename(self._job["replaced"])
        self._partial.rename(self._path)
        _sync(self._path.parent)

    def _tell(self, state: str, message: str, refusal: str = "") -> None:
        total = self._manifest["bytes"]
        have = total if state == "done" else self._have()
        self._seen.append((time.monotonic(), have))
        (since, before), (until, now) = self._seen[0], self._seen[-1]
        rate = max(0.0, (now - before) / (until - since)) if until > since else 0.0
        size = (
            f"{have / _GIB:.1f} of {total / _GIB:.1f} GiB"
            if total > _GIB
            else f"{have / _MIB:.0f} of {total / _MIB:.0f} MiB"
        )
        left = f", {(total - have) / rate:.0f} s left" if rate else ""
        note = f"{size}, {rate / _MIB:.1f} MiB/s{left}" if state == "fetching" else f"{size}; {message}"
        told = {"state": state, "bytes": have, "total": total, "tries": self._tries, "message": message, "note": note}
        told["refusal"] = refusal
        _write(Path(self._job["progress"]), json.dumps(told))


def _write(path: Path, text: str) -> None:
    """Write `text` to the file, completely or not at all."""
    scratch = path.with_name(f".{path.name.removeprefix('.')}.new")
    with scratch.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    scratch.rename(path)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def main() -> None:
    """Run the job."""
    fetch = Fetch(Path(sys.argv[1]))
    try:
        fetch.run()
    except (Refusal, OSError) as fault:
        message, refusal = fault.args if isinstance(fault, Refusal) else (str(fault), "")
        if isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT):
            message, refusal = f"{fault}. Free some space, then re-run the command.", "model-no-space"
        with contextlib.suppress(OSError):  # a full disk takes no report
            fetch.refuse(message, refusal)
        if refusal:
            print(json.dumps({"refusal": {"id": refusal, "message": message}}))
        sys.exit(message)


if __name__ == "__main__":
    main()
