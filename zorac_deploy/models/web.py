"""A model in a directory of a web server that has a manifest."""

from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import quote

from pydantic import BaseModel, Field, ValidationError

from zorac_deploy.errors import Refused
from zorac_deploy.models.choose import needed
from zorac_deploy.models.remote import File, Listing, explained, read, settings
from zorac_deploy.models.source import Web


class _Entry(BaseModel):
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Manifest(BaseModel):
    files: dict[str, _Entry]


def listing(web: Web, pickle: bool) -> Listing:
    """The current files of the model, from ``manifest.json`` in its directory.

    Raises:
        Refused: It cannot be reached, or is not a model.
    """
    with explained(str(web)):
        text = read(f"{web.url}manifest.json")
        try:
            files = _Manifest.model_validate_json(text).files
        except ValidationError as fault:
            first = fault.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise Refused(
                f"{web.url}manifest.json is not a manifest: {where} {first['msg']}. Needed: "
                '{"files": {"config.json": {"size": 123, "sha256": "…"}, …}}',
                "model-damaged",
            ) from None
        config = settings(read(f"{web.url}config.json"), str(web)) if "config.json" in files else {}
    chosen = needed(str(web), files, web.file, config, pickle)
    return Listing(str(web), "", tuple(_file(web, path, files[path]) for path in chosen))


def _file(web: Web, path: str, entry: _Entry) -> File:
    name = PurePosixPath(path).name if path.endswith(".gguf") else path
    return File(name, web.url + quote(path), entry.size, sha256=entry.sha256)
