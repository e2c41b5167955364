"""roles/model_weights/files/fetcher/: despite any fault of the hub, a model is complete or absent, and resumes."""

import json
import os
import random
import shutil
import signal
import subprocess
import time

import pytest

from tests.fetching import begin, command, fetch, job, published, target
from tests.hub_server import GATED, MOVED, NO_REVISION, Fault, Hub
from zorac_deploy import errors

WEIGHTS = random.Random(1).randbytes(400_000)  # noqa: S311 - the same each time
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS, "nested/vocab.txt": b"a b c"}


@pytest.fixture
def hub():
    with Hub("org/name", FILES) as made:
        yield made


def once(path, *faults, method="GET"):
    """Let the first requests for `path` fail, one fault after the other."""
    left = list(faults)

    def fault(asked_method, asked_path):
        return left.pop(0) if left and asked_method == method and path in asked_path else None

    return fault


def always(path, fault, method="GET"):
    return lambda asked_method, asked_path: fault if asked_method == method and path in asked_path else None


def of_weights(hub):
    return [path for method, path in hub.asked if method == "GET" and "/store/" in path]


@pytest.mark.parametrize("web", [False, True])
def test_a_model_appears_complete_with_its_record(hub, tmp_path, web):
    assert fetch(job(tmp_path, hub, web=web)) == ""
    assert published(tmp_path) == FILES
    record = json.loads((target(tmp_path) / ".zorac-deploy.json").read_text())
    assert set(record["files"]) == set(FILES)
    assert json.loads((tmp_path / "progress.json").read_text())["state"] == "done"
    before = len(hub.asked)
    assert fetch(job(tmp_path, hub, web=web)) == ""
    assert len(hub.asked) == before


@pytest.mark.parametrize(
    "fault",
    [
        Fault(after=150_000),
        Fault(after=0),
        Fault(after=150_000, how="stall"),
        Fault(after=0, how="stall"),
        Fault(after=150_000, how="short"),
        Fault(after=150_000, how="wrong"),
        Fault(status=500),
        Fault(status=503),
        Fault(status=429, headers={"Retry-After": "1"}),
        Fault(status=403),  # from the store: its address has expired
    ],
)
def test_temporary_faults_are_retried(hub, tmp_path, fault):
    hub.fault = once("/store/", fault)
    assert fetch(job(tmp_path, hub, stall_seconds=2 if fault.how == "stall" else 20)) == ""
    assert published(tmp_path) == FILES


@pytest.mark.parametrize("fault", [Fault(after=150_000), Fault(after=150_000, how="wrong"), Fault(status=500)])
def test_a_web_server_is_handled_like_a_hub(hub, tmp_path, fault):
    hub.fault = once("model.safetensors", fault)
    assert fetch(job(tmp_path, hub, web=True)) == ""
    assert published(tmp_path) == FILES


def test_existing_bytes_are_not_downloaded_again(hub, tmp_path, monkeypatch):
    hub.fault = once("/store/", Fault(after=150_000), Fault(after=150_000))
    asked = []
    write = hub.RequestHandlerClass._write
    monkeypatch.setattr(hub.RequestHandlerClass, "_write", lambda *call: (asked.append(len(call[1])), write(*call)))
    assert fetch(job(tmp_path, hub)) == ""
    assert [size for size in asked if size > 1000] == [400_000, 250_000, 100_000]


@pytest.mark.parametrize(
    ("path", "fault", "refusal"),
    [
        ("/resolve/", Fault(status=401), "model-gated"),
        ("/resolve/", GATED, "model-gated"),
        ("/resolve/", NO_REVISION, "model-missing"),
        ("/resolve/", Fault(status=404, headers={"X-Error-Code": "RepoNotFound"}), "model-missing"),
        ("/resolve/", Fault(status=500), "model-unreachable"),
        ("/store/", Fault(after=0, how="stall"), "model-unreachable"),
        ("/store/", Fault(after=9, how="wrong"), "model-damaged"),
        ("/store/", Fault(after=0), "model-unreachable"),
    ],
)
def test_permanent_faults_are_refused_and_nothing_appears(hub, tmp_path, path, fault, refusal):
    hub.fault = lambda _, asked: fault if path in asked else None
    assert fetch(job(tmp_path, hub, stall_seconds=2)).startswith(f"[{refusal}] ")
    assert published(tmp_path) is None
    assert json.loads((tmp_path / "progress.json").read_text())["refusal"] == refusal
    hub.fault = lambda *_: None
    assert fetch(job(tmp_path, hub)) == ""
    assert published(tmp_path) == FILES


def test_revisions_are_not_mixed(hub, tmp_path):
    hub.fault = always("model.safetensors", MOVED, "HEAD")
    assert "commit ffffffff" in fetch(job(tmp_path, hub))
    assert published(tmp_path) is None
    assert of_weights(hub) == []


def test_a_replaced_file_is_detected(hub, tmp_path):
    wanted = job(tmp_path, hub)
    hub.revisions[hub.head] = {**FILES, "model.safetensors": WEIGHTS[::-1]}
    assert fetch(wanted).startswith("[model-damaged] model.safetensors")
    assert published(tmp_path) is None


def test_only_the_hub_gets_the_token(hub, tmp_path):
    hub.token = "hf_secret"  # noqa: S105 - of nobody
    assert fetch(job(tmp_path, hub)).startswith("[model-gated] ")
    (tmp_path / "hub-token").write_text("hf_secret\n")
    # The store refuses requests with a token.
    assert fetch(job(tmp_path, hub), env={**os.environ, "CREDENTIALS_DIRECTORY": str(tmp_path)}) == ""


@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_a_kill_loses_nothing_but_time(hub, tmp_path, seconds):
    hub.pace = 100_000  # four seconds for all of it
    process = begin(job(tmp_path, hub))
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)  # the child process continues for a while, beside the next one
    process.wait()
    assert published(tmp_path) is None
    hub.pace = 0
    assert fetch(job(tmp_path, hub)) == ""
    assert published(tmp_path) == FILES


@pytest.mark.parametrize("name", ["../outside.json", "/etc/outside.json", ".hidden", "a/../../b"])
def test_a_file_outside_of_the_directory_is_refused(tmp_path, name):
    with Hub("org/name", {name: b"x"}) as hub:
        assert fetch(job(tmp_path, hub)).startswith("[model-unsafe] ")
    assert published(tmp_path) is None


def test_unknown_files_are_not_published(hub, tmp_path):
    partial = tmp_path / "models" / "model.partial"
    (partial / "nested").mkdir(parents=True)
    (partial / "model.safetensors").symlink_to("/etc/passwd")
    (partial / "nested" / "strange.bin").write_bytes(b"x")
    (partial / "config.json").write_bytes(b"[]")  # renamed as if it were complete
    assert fetch(job(tmp_path, hub)) == ""
    assert published(tmp_path) == FILES


def test_missing_space_is_detected_before_the_download(hub, tmp_path):
    wanted = job(tmp_path, hub)
    described = json.loads(wanted.read_text())
    described["manifest"]["bytes"] = shutil.disk_usage(tmp_path).total
    wanted.write_text(json.dumps(described))
    assert fetch(wanted).startswith("[model-no-space] ")
    assert hub.asked == []


def test_a_disk_that_fills_up_is_reported(tmp_path):
    """A real one: many small files take more space than they have bytes."""
    files = {f"{number:03}.txt": b"x" for number in range(100)}
    (tmp_path / "models").mkdir()
    with Hub("org/name", files) as hub:
        script = 'mount -t tmpfs -o size=128k tmpfs "$1" && shift && exec "$@"'
        unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
        done = subprocess.run(
            [*unshare, "sh", "-c", script, "sh", str(tmp_path / "models"), *command(job(tmp_path, hub))],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1
    assert errors.refused(done.stdout).refusal == "model-no-space", done.stderr
