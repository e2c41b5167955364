"""A GGUF model served by llama.cpp: on the host, for a user, and alternating with vLLM."""

import json
import subprocess

import pytest

from zorac_deploy.sandbox import host as sandbox
from zorac_deploy.sandbox import model


@pytest.fixture
def run(host, tmp_path):
    inventory = sandbox.find(host.backend.get_hostname()).inventory

    def ran(*words):
        command = ["zorac-deploy", *map(str, words), "--inventory", inventory]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return ran


@pytest.fixture
def shown(host):
    """The current unit, and the existing units."""

    def look():
        about = json.loads(host.file("/etc/zorac-deploy/current/generation.json").content_string)
        there = {name for name in ("vllm", "llama-cpp") if host.file(f"/etc/systemd/system/{name}.service").exists}
        return about["unit"].removesuffix(".service"), there

    return look


def test_llama_cpp_serves_with_the_same_sandboxing(host, shown):
    assert shown() == ("llama-cpp", {"llama-cpp"})
    with host.sudo():
        verdict = host.check_output("systemd-analyze security llama-cpp --no-pager").splitlines()[-1]
        key = host.file("/etc/zorac-deploy/api-key").content_string.strip()
        for where in ("systemctl cat llama-cpp", "ps -eo args", "journalctl --unit llama-cpp --no-pager"):
            assert key not in host.check_output(where), where
        assert "api_keys: ****" not in host.check_output("journalctl --unit llama-cpp --no-pager")  # its last lines
    assert float(verdict.split(":")[1].split()[0]) <= 2.0, verdict


def test_the_logged_memory_matches_the_plan(run):
    found = json.loads(run("status", "--json"))
    predicted, logged = found["plan"]["predicted"], found["logged"]
    assert found["engine"].startswith("llama-cpp-cpu-")
    assert logged["kernels"] == ["CPU"]
    assert (logged["kv_tokens"], logged["max_model_len"]) == (predicted["kv_tokens"], 4096)
    for part in ("weights_gib", "kv_gib", "activation_gib"):
        assert logged[part] == pytest.approx(predicted[part], rel=0.1, abs=0.002), part


def test_a_chat_gets_a_reply(run):
    assert run("chat", "-m", "What is the capital of France?", "--max-tokens", "40").strip()


def test_the_watchdog_finds_it_healthy(host):
    with host.sudo():
        look = "/usr/local/lib/zorac-deploy/zorac-host watch --idle-seconds 0 --stall-seconds 60 --answer-seconds 30"
        assert host.check_output(look) in ("the engine generates tokens", "the engine is idle and answers")


def test_switching_between_engines(run, host, shown):
    run("up", "--model", model.path())
    assert shown() == ("vllm", {"vllm"})
    run("rollback")
    assert shown() == ("llama-cpp", {"llama-cpp"})
    assert run("chat", "-m", "What is the capital of France?", "--max-tokens", "40").strip()
    with host.sudo():
        assert not host.file("/var/lib/zorac-deploy/activation.json").exists
