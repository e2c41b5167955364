"""Files of a model that are elsewhere: what is known of them, and how a piece of one is read."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported, but not so that mypy sees it
    build_hf_headers,
    hf_raise_for_status,
    http_backoff,
)

from zorac_deploy.errors import Refused

_TOKEN = "Set a token with HF_TOKEN=…, or type: hf auth login"  # noqa: S105 - says where one comes from


@dataclass(frozen=True)
class File:
    """One file of a model.

    Attributes:
        name: Its path in the model's folder.
        url: Where it is.
        size: In bytes.
        sha256: Of its content; empty where only `blob` is known.
        blob: The name that git gives to its content; empty where `sha256` is known.
    """

    name: str
    url: str
    size: int
    sha256: str = ""
    blob: str = ""

    def checked(self, content: bytes, source: str) -> "File":
        """The file with the SHA-256 of its whole `content`.

        Raises:
            Refused: It is not the content that was announced.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        good = sha256 == self.sha256 if self.sha256 else blob == self.blob
        if not good or len(content) != self.size:
            raise Refused(
                f"{self.name} of {source} does not match its announced size or SHA-256: {len(content)} bytes came. "
                "Re-run the command. If this repeats, a proxy changes files.",
                "model-damaged",
            )
        return replace(self, sha256=sha256)


@dataclass(frozen=True)
class Listing:
    """What a model consists of, at one revision.

    Attributes:
        source: What brings the very same files again: its revision is a commit.
        revision: That commit; empty where there is no such thing.
        files: The files that are needed.
        token: What the server may want to see.
    """

    source: str
    revision: str
    files: tuple[File, ...]
    token: str | None = field(default=None, repr=False)


def read(url: str, token: str | None = None, first: int = 0, last: int | None = None) -> bytes:
    """The bytes from `first` to `last` of a file; without them, all."""
    headers: dict[str, str] = {**build_hf_headers(token=token or False), "Accept-Encoding": "identity"}
    if last is not None:
        headers["Range"] = f"bytes={first}-{last}"
    response = http_backoff("GET", url, headers=headers, max_retries=3, follow_redirects=True)
    hf_raise_for_status(response)
    content = response.content
    # A server may answer with the whole file instead.
    return content[first : last + 1] if last is not None and response.status_code == 200 else content


def settings(content: bytes, source: str) -> dict[str, Any]:
    """The config.json with that `content`.

    Raises:
        Refused: It is none.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(f"config.json of {source} holds no settings. Name another revision or model.", "model-damaged")
    return found


@contextlib.contextmanager
def explained(source: str) -> Iterator[None]:
    """Say what went wrong on the way to `source`, and what to do, in place of the client's own words.

    Raises:
        Refused: Something did.
    """
    try:
        yield
    except GatedRepoError:
        raise Refused(
            f"{source} is gated: its authors ask you to accept their terms. Accept them on the model's page on the "
            f"hub. {_TOKEN}",
            "model-gated",
        ) from None
    except RepositoryNotFoundError:
        raise Refused(
            f"{source} does not exist, or is private. Check the name. If it is private: {_TOKEN}", "model-missing"
        ) from None
    except RevisionNotFoundError:
        raise Refused(
            f"{source}: the repository has no such revision. Name one of its branches, tags or commits.",
            "model-missing",
        ) from None
    except HfHubHTTPError as fault:
        status = fault.response.status_code
        if status in (401, 403):
            raise Refused(f"your token has no access to {source} ({status}). {_TOKEN}", "model-gated") from None
        if status == 404:
            raise Refused(f"{source}: {fault.response.url} was not found. Check the name.", "model-missing") from None
        raise Refused(
            f"cannot read {source}: the server answers {status}. Try again later.", "model-unreachable"
        ) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as fault:
        raise Refused(
            f"cannot reach {source}: {fault or type(fault).__name__}. Check the network, HTTPS_PROXY and HF_ENDPOINT, "
            "or use a directory on this machine.",
            "model-unreachable",
        ) from None
