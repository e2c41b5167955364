"""A model on a Hugging Face hub: its commit, and the files needed."""

from pathlib import PurePosixPath
from typing import Any

from huggingface_hub import HfApi, get_token, hf_hub_url
from huggingface_hub.hf_api import RepoSibling

from zorac_deploy.models.choose import needed
from zorac_deploy.models.remote import File, Listing, explained, read, settings
from zorac_deploy.models.source import Hub


def listing(hub: Hub, endpoint: str, pickle: bool, token: str | None = None) -> Listing:
    """The current files of the model. The commit is resolved once, and all files are of that commit.

    Raises:
        Refused: It cannot be reached or read, or is not a model.
    """
    token = token or get_token()
    with explained(str(hub)):
        info = HfApi(endpoint=endpoint, token=token or False).model_info(
            hub.repo, revision=hub.revision or None, files_metadata=True
        )
        pinned = Hub(hub.repo, str(info.sha), hub.file)
        files = {sibling.rfilename: _file(sibling, pinned, endpoint) for sibling in info.siblings or ()}
        config = _config(files, token, str(hub))
    chosen = needed(str(hub), files, hub.file, config, pickle)
    return Listing(str(pinned), pinned.revision, tuple(files[path] for path in chosen), token)


def _file(sibling: RepoSibling, pinned: Hub, endpoint: str) -> File:
    path = sibling.rfilename
    url = hf_hub_url(pinned.repo, path, revision=pinned.revision, endpoint=endpoint)
    # A GGUF file is a model by itself, in any directory.
    name = PurePosixPath(path).name if path.endswith(".gguf") else path
    if sibling.lfs:
        return File(name, url, sibling.lfs.size, sha256=sibling.lfs.sha256)
    return File(name, url, sibling.size or 0, blob=sibling.blob_id or "")


def _config(files: dict[str, File], token: str | None, source: str) -> dict[str, Any]:
    if "config.json" not in files:
        return {}
    content = read(files["config.json"].url, token)
    files["config.json"].checked(content, source)
    return settings(content, source)
