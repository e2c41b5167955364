"""Remote files of a model: their metadata, and how to read a range of one."""

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
    """A file of a model.

    Attributes:
        name: Its path in the model's directory.
        url: Where it is.
        size: In bytes.
        sha256: The SHA-256 of its content; empty if only `blob` is known.
        blob: git's id of its content; empty if `sha256` is known.
    """

    name: str
    url: str
    size: int
    sha256: str = ""
    blob: str = ""

    def checked(self, content: bytes, source: str) -> "File":
        """The file with the SHA-256 of its whole `content`.

        Raises:
            Refused: The content differs from the listing.
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
    """The files of a model at one revision.

    Attributes:
        source: The pinned source, which gives the same files again.
        revision: The commit; empty for other servers.
        files: The files needed.
        token: The token for the server, if it needs one.
    """

    source: str
    revision: str
    files: tuple[File, ...]
    token: str | None = field(default=None, repr=False)


def read(url: str, token: str | None = None, first: int = 0, last: int | None = None) -> bytes:
    """Read the bytes from `first` to `last` of a file; by default all."""
    headers: dict[str, str] = {**build_hf_headers(token=token or False), "Accept-Encoding": "identity"}
    if last is not None:
        headers["Range"] = f"bytes={first}-{last}"
    response = http_backoff("GET", url, headers=headers, max_retries=3, follow_redirects=True)
    hf_raise_for_status(response)
    content = response.content
    # a server may send the whole file instead
    return content[first : last + 1] if last is not None and response.status_code == 200 else content


def settings(content: bytes, source: str) -> dict[str, Any]:
    """Parse `content` as config.json.

    Raises:
        Refused: It is not valid.
    """
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise Refused(f"config.json of {source} has no settings. Use another revision or model.", "model-damaged")
    return parsed


@contextlib.contextmanager
def explained(source: str) -> Iterator[None]:
    """Replace an error of the HTTP client on the way to `source` by our own message.

    Raises:
        Refused: An error occurred.
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
