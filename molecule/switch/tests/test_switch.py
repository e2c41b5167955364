"""`switch` and `rollback` on the command line, with a real engine and requests in progress."""

import json
import os
import subprocess
import threading
import time

import httpx2
import pytest

from zorac_deploy.sandbox import host as sandbox

# A profile of the user's own: the CPU profile with a shorter context.
_PROFILE = """
gpu_servers:
  children:
    small:
cpu:
  children:
    small:
      vars:
        vllm_profile: small
        vllm_max_model_len: 2048
"""


@pytest.fixture
def run(tmp_path):
    inventory = tmp_path / "profiles.yml"
    inventory.write_text(_PROFILE)
    sources = ["--inventory", sandbox.find("molecule-switch").inventory, "--inventory", inventory]

    def ran(*words, **kwargs):
        command = ["zorac-deploy", *map(str, words), *map(str, sources)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, **kwargs)

    return ran


@pytest.fixture
def endpoint(host):
    about = json.loads(host.file("/etc/zorac-deploy/current/generation.json").content_string)
    with host.sudo():
        key = host.file("/etc/zorac-deploy/api-key").content_string.strip()
    return httpx2.Client(
        base_url=f"http://127.0.0.1:{about['port']}",
        headers={"Authorization": f"Bearer {key}"},
        timeout=100,
        trust_env=False,
    )


def ask(endpoint, tokens):
    """The number of tokens that a request got until its end; it ignores the end of text, to get all of them."""
    body = {
        "model": "SmolLM2-135M-Instruct",
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    received = 0
    try:
        with endpoint.stream("POST", "/v1/chat/completions", json=body) as answer:
            for line in answer.iter_lines():
                if line.startswith("data: {"):
                    received = json.loads(line.removeprefix("data: "))["usage"]["completion_tokens"]
    except httpx2.HTTPError:
        pass  # refused or ended by the engine's stop
    return received


def current(host):
    return json.loads(host.file("/etc/zorac-deploy/current/generation.json").content_string)


def test_switch_and_rollback(run, host, endpoint, tmp_path):
    assert "would change" in run("switch", "small", "--check").stdout
    first = current(host)["number"]

    # Zorac is used here, and has its own settings.
    zorac = tmp_path / "zorac"
    zorac.mkdir()
    (zorac / "config.json").write_text('{"TEMPERATURE": "0.7"}')
    environment = {**os.environ, "ZORAC_DIR": str(zorac)}

    # One long request follows the other, so that the old engine is stopped during one of them.
    received = []
    switching = threading.Event()

    def keep_asking():
        while not switching.is_set():
            received.append(ask(endpoint, 100))
            time.sleep(0 if received[-1] else 0.5)

    asking = threading.Thread(target=keep_asking)
    asking.start()
    switched = run("switch", "small", "--json", env=environment)
    switching.set()
    asking.join()
    assert switched.returncode == 0, switched.stderr
    # What has begun is finished; what comes later is refused at once, and does not wait.
    assert received[0] == 100
    assert set(received) == {100, 0}

    told = json.loads(switched.stdout)
    assert (told["from"]["profile"], told["deployment"]["profile"]) == ("cpu", "small")
    assert told["downtime"].keys() == {"stop", "memory", "start", "proof", "silent"}
    written = json.loads((zorac / "config.json").read_text())
    assert written["TEMPERATURE"] == "0.7"
    assert int(written["MAX_INPUT_TOKENS"]) + int(written["MAX_OUTPUT_TOKENS"]) <= 2048
    second = current(host)["number"]
    assert second == first + 1

    # Where it serves already, nothing is done.
    again = json.loads(run("switch", "small", "--json").stdout)
    assert again["changed"] == []

    # Back to the existing generation.
    back = run("rollback")
    assert back.returncode == 0, back.stderr
    assert f"generation {second} → {first}" in back.stdout
    assert current(host)["profile"] == "cpu"
    assert json.loads(run("up", "--json").stdout)["changed"] == []

    listed = json.loads(run("generations", "--json").stdout)["generations"]
    assert [(each["number"], each["state"], each["current"]) for each in listed[-2:]] == [
        (first, "proved", True),
        (second, "proved", False),
    ]


def test_invalid_arguments(run):
    assert run("switch", "turbo", "--yes").returncode == 4
    assert run("rollback", "9").returncode == 33


def test_a_second_switch_is_refused_and_names_the_first(run, host):
    command = threading.Thread(target=run, args=("switch", "cpu", "--json"))
    command.start()
    deadline = time.monotonic() + 60
    with host.sudo():
        while "switch cpu" not in host.run("cat /run/zorac-deploy/lock").stdout and time.monotonic() < deadline:
            time.sleep(0.1)
    found = run("rollback", "1")
    command.join()
    assert found.returncode == 14
    assert "zorac-deploy switch cpu" in found.stderr
