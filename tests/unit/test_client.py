"""zorac_deploy/client.py: Zorac's settings match the deployment, and other settings are unchanged."""

import json
from types import SimpleNamespace

import pytest

from zorac_deploy import client
from zorac_deploy.errors import ZoracDeployError
from zorac_deploy.inventory import Target

FITTING = {"VLLM_BASE_URL": "http://tower:8000/v1", "MAX_INPUT_TOKENS": "23014", "MAX_OUTPUT_TOKENS": "4000"}


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Zorac's settings file in an existing directory."""
    monkeypatch.delenv("ZORAC_CONFIG_FILE", raising=False)
    monkeypatch.setenv("ZORAC_DIR", str(tmp_path))
    return tmp_path / "config.json"


def test_the_usual_context_has_room_for_an_answer_of_zoracs_own_length():
    assert client.limits(32768) == client.Limits(23014, 4000)


@pytest.mark.parametrize("context", [2048, 4096, 16384, 32768, 131072])
def test_a_german_conversation_leaves_room_for_the_whole_answer(context):
    """The model had 1.19 tokens for each that Zorac counted; the template takes some tens more."""
    fits = client.limits(context)
    assert fits.max_input_tokens * 1.19 + 64 + fits.max_output_tokens <= context


def test_input_and_output_fit_into_every_context():
    for context in range(256, 262145):
        fits = client.limits(context)
        assert 0 < fits.max_output_tokens < fits.max_input_tokens
        assert fits.max_input_tokens + fits.max_output_tokens <= context


@pytest.mark.parametrize(
    "spoil", [lambda f: f.mkdir(), lambda f: f.write_text("[" * 100_000), lambda f: f.write_text("[]")]
)
def test_settings_that_cannot_be_read_are_named_with_the_cure(file, spoil):
    spoil(file)
    with pytest.raises(ZoracDeployError, match="Repair or remove it"):
        client.write(FITTING)


def test_the_settings_are_where_zorac_looks_for_them(tmp_path, monkeypatch):
    for name in ("ZORAC_DIR", "ZORAC_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert client.config_file() == tmp_path / ".zorac" / "config.json"
    monkeypatch.setenv("ZORAC_DIR", "/elsewhere")
    assert str(client.config_file()) == "/elsewhere/config.json"
    monkeypatch.setenv("ZORAC_CONFIG_FILE", "/own/settings.json")
    assert str(client.config_file()) == "/own/settings.json"


@pytest.mark.parametrize(
    ("local", "listen", "address"),
    [
        (True, "0.0.0.0", "localhost"),  # noqa: S104 - told, not bound
        (False, "127.0.0.1", "localhost"),
        (False, "0.0.0.0", "192.0.2.7"),  # noqa: S104
        (False, "192.0.2.8", "192.0.2.8"),
        (False, "tower.lan", "tower.lan"),
        (True, "192.0.2.8", "192.0.2.8"),  # it does not listen on the loopback address
        (True, "127.0.0.1", "localhost"),
        (True, "::", "localhost"),
        (True, "::1", "[::1]"),
        (False, "::1", "localhost"),
        (False, "::", "192.0.2.7"),
        (False, "2001:db8::8", "[2001:db8::8]"),
    ],
)
def test_the_address_is_reachable_from_this_machine(local, listen, address):
    connection = SimpleNamespace(target=Target("tower", "headless", "192.0.2.7", local=local))
    found = SimpleNamespace(listen=listen, port=8000, model="m", max_model_len=None)
    fitting = client.settings(connection, found, "k")
    assert fitting == {"VLLM_BASE_URL": f"http://{address}:8000/v1", "VLLM_API_KEY": "k", "VLLM_MODEL": "m"}


def test_without_zorac_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("ZORAC_CONFIG_FILE", str(tmp_path / "never" / "config.json"))
    assert "nothing written" in client.write(FITTING)
    assert list(tmp_path.iterdir()) == []


def test_new_settings_are_readable_only_by_their_owner(file):
    assert client.write(FITTING) == f"written to {file}"
    assert json.loads(file.read_text()) == FITTING
    assert file.stat().st_mode & 0o777 == 0o600


def test_other_settings_are_unchanged(file):
    file.write_text(json.dumps({"TEMPERATURE": "0.2", "MAX_INPUT_TOKENS": "9"}))
    client.write(FITTING)
    assert json.loads(file.read_text()) == {"TEMPERATURE": "0.2", **FITTING}
    assert client.write(FITTING) == f"{file} is up to date"
    assert list(file.parent.iterdir()) == [file]


def test_settings_for_another_server_are_unchanged(file):
    text = '{"VLLM_BASE_URL": "https://other/v1"}'
    file.write_text(text)
    assert client.write(FITTING) == f"{file} is for https://other/v1: not changed"
    assert file.read_text() == text


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b"\xff"])
def test_an_invalid_settings_file_is_reported_and_unchanged(file, content):
    file.write_bytes(content)
    with pytest.raises(ZoracDeployError, match="Repair or remove it"):
        client.write(FITTING)
    assert file.read_bytes() == content


def test_on_request_the_settings_are_always_written(tmp_path, monkeypatch):
    monkeypatch.delenv("ZORAC_CONFIG_FILE", raising=False)
    monkeypatch.setenv("ZORAC_DIR", str(tmp_path / "never-used"))
    file = tmp_path / "never-used" / "config.json"
    assert client.write(FITTING, always=True) == f"written to {file}"
    file.write_text(json.dumps({"VLLM_BASE_URL": "http://other:8000/v1", "TEMPERATURE": "0.7"}))
    assert client.write(FITTING, always=True) == f"written to {file}"
    assert json.loads(file.read_text()) == {"TEMPERATURE": "0.7", **FITTING}
