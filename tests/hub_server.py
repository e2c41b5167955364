"""A fake Hugging Face hub: it implements the hub's protocol as far as the real client uses it, and faults on demand.

Large files are stored elsewhere, as on the hub: ``resolve`` redirects to another origin, which refuses tokens.
``/web/ORG/NAME/`` is the same model as a plain directory with a manifest.
By hand: ``python -m tests.hub_server FOLDER ORG/NAME [--port N] [--mib-per-second N]``.
"""

import argparse
import contextlib
import hashlib
import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_LARGE = (".safetensors", ".gguf", ".bin")


@dataclass(frozen=True)
class Fault:
    """A fault of one request.

    Attributes:
        status: Answer with this status; 0 answers normally.
        headers: Further headers.
        after: Send so many bytes and then stop; None sends all.
        how: How it stops: ``cut`` the connection, ``stall``, end as if that were all (``short``), or continue with
            ``wrong`` bytes.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    after: int | None = None
    how: str = "cut"


GATED = Fault(403, {"X-Error-Code": "GatedRepo"})
NO_REVISION = Fault(404, {"X-Error-Code": "RevisionNotFound"})
MOVED = Fault(headers={"X-Repo-Commit": "f" * 40})


def commit(files: Mapping[str, bytes]) -> str:
    """The name of the revision that holds `files`."""
    return hashlib.sha1(repr(sorted(files.items())).encode(), usedforsecurity=False).hexdigest()


class Hub(http.server.ThreadingHTTPServer):
    """A hub with one repository. Use it as a context.

    Attributes:
        fault: Called before each answer, with the method and the path; None answers normally.
        asked: Every request, as method and path.
        listed: The entries of search results, this model or others.
        token: The token required to read files; empty for none.
    """

    daemon_threads = True

    def __init__(self, repo: str, files: Mapping[str, bytes], port: int = 0, bytes_per_second: float = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.repo, self.pace = repo, bytes_per_second
        self.revisions: dict[str, Mapping[str, bytes]] = {}
        self.fault: Callable[[str, str], Fault | None] = lambda _method, _path: None
        self.asked: list[tuple[str, str]] = []
        self.listed: list[dict[str, Any]] = []
        self.token = ""
        self.over = threading.Event()
        self.commit(files)

    def commit(self, files: Mapping[str, bytes]) -> str:
        """Make `files` the main branch."""
        self.head = commit(files)
        self.revisions[self.head] = dict(files)
        return self.head

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def store(self) -> str:
        """The other origin."""
        return f"http://localhost:{self.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """A client that disconnected is expected."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        hub, path = self.server, unquote(self.path.partition("?")[0])
        hub.asked.append((self.command, path))
        fault = hub.fault(self.command, path) or Fault()
        if fault.status:
            self._send(b"{}", fault, status=fault.status)
        elif path == "/api/models":
            self._search(parse_qs(urlsplit(self.path).query), fault)
        elif path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"), fault)
        elif path.startswith("/store/"):
            self._stored(path.removeprefix("/store/"), fault)
        elif path.startswith(f"/web/{hub.repo}/"):
            self._web(path.removeprefix(f"/web/{hub.repo}/"), fault)
        elif path.startswith(f"/{hub.repo}/resolve/"):
            self._resolve(path.removeprefix(f"/{hub.repo}/resolve/"), fault)
        else:
            self._send(b"{}", Fault(headers={"X-Error-Code": "RepoNotFound"}), status=404)

    def _search(self, query: Mapping[str, list[str]], fault: Fault) -> None:
        wanted, author = set(query.get("filter", ())), query.get("author", [""])[0]
        found = [each for each in self.server.listed if wanted <= set(each["tags"]) and each["id"].startswith(author)]
        self._send(json.dumps(found).encode(), fault)

    def _api(self, path: str, fault: Fault) -> None:
        repo, _, revision = path.partition("/revision/")
        told = [each for each in self.server.listed if each["id"] == repo != self.server.repo]
        if told:
            self._send(json.dumps(told[0]).encode(), fault)
            return
        sha = self._sha(revision or "main")
        if repo != self.server.repo:
            self._send(b"{}", Fault(headers={"X-Error-Code": "RepoNotFound"}), status=404)
        elif not sha:
            self._send(b"{}", NO_REVISION, status=404)
        else:
            siblings = [_sibling(name, data) for name, data in self.server.revisions[sha].items()]
            self._send(json.dumps({"id": repo, "sha": sha, "siblings": siblings}).encode(), fault)

    def _resolve(self, path: str, fault: Fault) -> None:
        revision, _, name = path.partition("/")
        sha = self._sha(revision)
        if self.server.token and self.headers["Authorization"] != f"Bearer {self.server.token}":
            self._send(b"{}", GATED, status=401)
        elif not sha:
            self._send(b"{}", NO_REVISION, status=404)
        elif name not in self.server.revisions[sha]:
            self._send(b"{}", Fault(headers={"X-Error-Code": "EntryNotFound"}), status=404)
        else:
            data, known = self.server.revisions[sha][name], {"X-Repo-Commit": sha}
            if not name.endswith(_LARGE):
                self._send(data, fault, {**known, "ETag": f'"{_blob(data)}"'})
                return
            digest = hashlib.sha256(data).hexdigest()
            known |= {"X-Linked-Size": str(len(data)), "X-Linked-ETag": f'"{digest}"'}
            known["Location"] = f"{self.server.store}/store/{digest}"
            self._send(b"", fault, known, 302)

    def _stored(self, digest: str, fault: Fault) -> None:
        if "Authorization" in self.headers:  # as the real store does, which wants the signature only in the address
            self._send(b"{}", Fault(), status=400)
            return
        everything = (data for files in self.server.revisions.values() for data in files.values())
        found = next(data for data in everything if hashlib.sha256(data).hexdigest() == digest)
        self._send(found, fault, {"ETag": f'"{digest}"'})

    def _web(self, name: str, fault: Fault) -> None:
        files = self.server.revisions[self.server.head]
        entries = {
            each: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for each, data in files.items()
        }
        if name == "manifest.json":
            self._send(json.dumps({"files": entries}).encode(), fault)
        elif name in files:
            self._send(files[name], fault)
        else:
            self._send(b"", fault, status=404)

    def _sha(self, revision: str) -> str:
        sha = self.server.head if revision == "main" else revision
        return sha if sha in self.server.revisions else ""

    def _send(self, data: bytes, fault: Fault, headers: Mapping[str, str] | None = None, status: int = 200) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        said = dict(headers or {})
        if wanted and status == 200:
            first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
            if first >= len(data):
                data, status = b"", 416
            else:
                said["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
                data, status = data[first : last + 1], 206
        if fault.after is not None and fault.how == "short":
            data = data[: fault.after]
        if fault.after is not None and fault.how == "wrong" and len(data) > fault.after:
            data = data[: fault.after] + bytes([data[fault.after] ^ 1]) + data[fault.after + 1 :]
        self.send_response(status)
        for name, value in {**said, "Content-Length": str(len(data)), **fault.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(OSError):  # the client has disconnected
            self._write(data, fault)

    def _write(self, data: bytes, fault: Fault) -> None:
        whole = fault.after is None or fault.how in ("short", "wrong") or fault.after >= len(data)
        sent = data if whole else data[: fault.after]
        step = 2**16
        for begin in range(0, len(sent), step):
            self.wfile.write(sent[begin : begin + step])
            if self.server.pace:
                time.sleep(step / self.server.pace)
        self.wfile.flush()
        if not whole:
            if fault.how == "stall":
                self.server.over.wait()
            self.close_connection = True


def _blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _sibling(name: str, data: bytes) -> dict[str, object]:
    found: dict[str, object] = {"rfilename": name, "size": len(data), "blobId": _blob(data)}
    if name.endswith(_LARGE):
        found["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("repo")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--mib-per-second", type=float, default=0)
    given = parser.parse_args()
    files = {path.name: path.read_bytes() for path in given.folder.iterdir() if path.is_file()}
    with Hub(given.repo, files, given.port, given.mib_per_second * 2**20) as hub:
        print(f"HF_ENDPOINT={hub.endpoint}", flush=True)  # noqa: T201
        threading.Event().wait()


if __name__ == "__main__":
    main()
