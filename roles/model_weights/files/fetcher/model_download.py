"""Download the missing files of a job of model_fetch.py, once, with the Hugging Face hub's client.

Each file is written under another name, verified by its SHA-256, forced to the disk, and renamed. Partial files are
resumed. Prints dots while bytes arrive, and at the end the result as one line of JSON.
Usage: ``model_download.py JOB FOLDER``. The token, if there is one, is the systemd credential ``hub-token``.
"""

import errno
import fcntl
import hashlib
import json
import os
import sys
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import get_hf_file_metadata
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError
from huggingface_hub.file_download import is_xet_available, xet_get
from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

_AT_ONCE = 4
_PASSING = (408, 416, 429, 500, 502, 503, 504)


class Again(Exception):
    """A later try may succeed."""

    def __init__(self, why: str, wait_seconds: float = 0) -> None:
        super().__init__(why)
        self.wait_seconds = wait_seconds


class Refusal(Exception):
    """No try will succeed. The second argument is the refusal's id."""


class Download:
    """The download of all files of one model."""

    def __init__(self, job: dict[str, Any], folder: Path, token: str | None) -> None:
        self._job, self._folder, self._token = job, folder, token

    def run(self) -> None:
        """Download all files, the largest first.

        Raises:
            Again, Refusal: The first failure. The other files keep their progress.
        """
        files = self._job["manifest"]["files"]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            tasks = [pool.submit(self._have, name) for name in sorted(files, key=lambda name: -files[name]["size"])]
            done, rest = wait(tasks, return_when=FIRST_EXCEPTION)
            failed = next((task for task in done if task.exception()), None)
            if failed:
                _end(_outcome(failed.exception(), self._job["manifest"]["source"]))
            assert not rest  # noqa: S101 - none failed, so all are done
        _end({"outcome": "done"})

    def _have(self, name: str) -> None:
        """Download and verify one file."""
        file, path = self._job["manifest"]["files"][name], self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() and _sha256(path) == file["sha256"]:
            return
        path.unlink(missing_ok=True)
        part = path.with_name(f".{path.name}.part")
        for _ in range(2):
            self._get(self._job["urls"][name], part, file)
            if part.stat().st_size == file["size"] and _sha256(part) == file["sha256"]:
                with part.open("rb") as handle:
                    os.fsync(handle.fileno())
                part.rename(path)
                return
            part.unlink()
        raise Refusal(
            f"{name} of {self._job['manifest']['source']} came twice with an unexpected SHA-256. "
            "A proxy may change files: check it, or use another source.",
            "model-damaged",
        )

    def _get(self, url: str, part: Path, file: dict[str, Any]) -> None:
        """Download the rest of `part`."""
        have = part.stat().st_size if part.exists() else 0
        if have > file["size"]:
            part.unlink()
            have = 0
        if have == file["size"] and part.exists():
            return
        headers = {**build_hf_headers(token=self._token or False), "Accept-Encoding": "identity"}
        if self._job["hub"]:
            metadata = get_hf_file_metadata(url, token=self._token or False, timeout=self._job["stall_seconds"])
            if f"/{metadata.commit_hash}/" not in url:
                raise Again(f"{url} answered with the commit {metadata.commit_hash}")
            if metadata.xet_file_data and is_xet_available() and not have:
                self._get_by_xet(part, file["size"], metadata.xet_file_data, headers)
                return
        if have:
            headers["Range"] = f"bytes={have}-"
        timeout = self._job["stall_seconds"]
        with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=timeout) as response:
            if response.status_code == 416:
                part.unlink()  # it is larger than the file
            hf_raise_for_status(response)
            with part.open("ab" if response.status_code == 206 else "wb") as target:
                for chunk in response.iter_raw():
                    target.write(chunk)
                    if target.tell() > file["size"]:
                        break
        if part.stat().st_size < file["size"]:
            raise Again(f"{url} ended too early")

    def _get_by_xet(self, part: Path, size: int, data: Any, headers: dict[str, str]) -> None:
        """Download with the hub's faster protocol. It writes in no order, so an interrupted file cannot be resumed."""
        scratch = part.with_name(f"{part.name}.xet")
        scratch.unlink(missing_ok=True)
        xet_get(incomplete_path=scratch, xet_file_data=data, headers=headers, expected_size=size)
        scratch.rename(part)


def _outcome(fault: BaseException | None, source: str) -> dict[str, Any]:
    """Convert an error to `Again` or `Refusal`."""
    match fault:
        case Refusal():
            message, refusal = fault.args
            return _refused(message, refusal)
        case Again():
            return {"outcome": "again", "message": str(fault), "wait_seconds": fault.wait_seconds}
        case HfHubHTTPError():
            return _answered(fault, source)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            message = f"the disk is full: {source} is incomplete. Free some space, then re-run the command."
            return _refused(message, "model-no-space")
        case httpx2.HTTPError() | OSError():
            return {"outcome": "again", "message": str(fault) or type(fault).__name__}
    return {"outcome": "again", "message": repr(fault)}


def _answered(fault: HfHubHTTPError, source: str) -> dict[str, Any]:
    """The meaning of an error response."""
    status, url = fault.response.status_code, fault.response.url
    # The hub's storage answers 403 when the address from the hub has expired. The next address is new.
    strange = status in (401, 403) and fault.response.history
    if status in _PASSING or strange:
        after = fault.response.headers.get("Retry-After", "")
        seconds = float(after) if after.isdecimal() else 0
        return {"outcome": "again", "message": f"the server answers {status}", "wait_seconds": seconds}
    if isinstance(fault, GatedRepoError) or status in (401, 403):
        message = (
            f"no access to {source} ({status}). Accept its terms on its page on the hub, "
            "and set a token with HF_TOKEN=…, or type: hf auth login"
        )
        return _refused(message, "model-gated")
    if status == 404:
        message = f"{url} no longer exists. Pull the newest: zorac-deploy model pull SOURCE --refresh"
        return _refused(message, "model-missing")
    return _refused(f"{url} answered {status}. Try again later.", "model-unreachable")


def _refused(message: str, refusal: str) -> dict[str, Any]:
    return {"outcome": "refused", "refusal": refusal, "message": message}


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**24):
            found.update(chunk)
            print(".", flush=True)
    return found.hexdigest()


def _end(outcome: dict[str, Any]) -> None:
    """Report the result and end at once: the other threads' progress is on disk."""
    print(json.dumps(outcome), flush=True)
    os._exit(0)


def main() -> None:
    """Run the download."""
    print(".", flush=True)
    folder = Path(sys.argv[2])
    # One at a time: an earlier process may still use the directory.
    fcntl.flock(os.open(folder, os.O_RDONLY), fcntl.LOCK_EX)
    credential = Path(os.environ.get("CREDENTIALS_DIRECTORY", "")) / "hub-token"
    token = credential.read_text().strip() if credential.is_file() else None
    Download(json.loads(Path(sys.argv[1]).read_text()), folder, token).run()


if __name__ == "__main__":
    main()
