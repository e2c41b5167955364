"""zorac_deploy/models/source.py: valid and invalid model sources."""

from pathlib import Path

import pytest

from tests.templates.render import render
from zorac_deploy.errors import Refused
from zorac_deploy.models.source import Hub, Web, local_name, parse

_COMMIT = "3feeddf0190a33980c97668836b10f71ccd2d4f4"


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf://org/name", Hub("org/name")),
        ("hf://org/name@main", Hub("org/name", "main")),
        (f"hf://org/name@{_COMMIT}/x-Q4.gguf", Hub("org/name", _COMMIT, "x-Q4.gguf")),
        ("hf://org/name/sub/x.gguf", Hub("org/name", "", "sub/x.gguf")),
        ("hf://org/name@refs/pr/7", Hub("org/name", "refs/pr/7")),
        ("https://huggingface.co/org/name", Hub("org/name")),
        ("https://huggingface.co/org/name/blob/main/x.gguf", Hub("org/name", "main", "x.gguf")),
        ("https://models.example/a/b", Web("https://models.example/a/b/")),
        ("https://models.example/a/x.gguf", Web("https://models.example/a/", "x.gguf")),
        ("http://127.0.0.1:8000/a/", Web("http://127.0.0.1:8000/a/")),
        ("/models/x", Path("/models/x")),
        ("~/x.gguf", Path.home() / "x.gguf"),
    ],
)
def test_valid_sources_are_parsed(text, source):
    assert parse(text) == source
    assert parse(str(source)) == source


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", "model-missing"),
        ("hf://", "settings-invalid"),
        ("hf://name", "settings-invalid"),
        ("hf://org/name@", "settings-invalid"),
        ("hf://org/na me", "settings-invalid"),
        ("hf://datasets/org/name", "settings-invalid"),
        ("hf://org/name/config.json", "settings-invalid"),
        ("hf://org/name/../x.gguf", "settings-invalid"),
        ("https://", "settings-invalid"),
        ("https://models.example/a?b=c", "settings-invalid"),
        ("https://me:secret@models.example/a", "settings-invalid"),
        ("http://models.example/a", "settings-invalid"),
        ("ftp://models.example/a", "settings-invalid"),
        ("https://[x", "settings-invalid"),
        ("~nobody-of-this-name/x", "settings-invalid"),
        ("/models/$HOME", "model-unsafe"),
        ("https://models.example/$HOME/", "model-unsafe"),
        ("/models/a\nb", "model-unsafe"),
    ],
)
def test_an_invalid_source_is_refused(text, refusal):
    with pytest.raises(Refused) as fault:
        parse(text)
    assert fault.value.refusal == refusal
    assert any(cure in str(fault.value) for cure in ("hf://ORG/NAME", "https", "Give the full path"))


def test_only_a_commit_is_pinned():
    assert Hub("org/name", _COMMIT).pinned
    assert not Hub("org/name", "main").pinned
    assert not Hub("org/name", _COMMIT[:12]).pinned


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/models/small", "small"),
        ("/cache/models--org--small-7B/snapshots/0123abc", "small-7B"),
        ("/cache/models--gpt2/snapshots/0123abc", "gpt2"),
        ("/cache/models--org--small/snapshots/0123abc/small-Q4.gguf", "small-Q4.gguf"),
        ("/models/snapshots/small", "small"),
    ],
)
def test_a_model_in_a_hubs_cache_is_named_after_its_repository(path, name):
    assert local_name(Path(path)) == name
    # The role's name: without a GGUF file's extension.
    named = render("model_weights", "{{ model_weights_name }}", model_weights_source=path)
    assert named == name.removesuffix(".gguf")
