"""A deployment to an offline host from a bundle, as a user handles it: interrupt it, continue, use it, remove it."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

import pytest

from zorac_deploy.sandbox import host, model

pytestmark = pytest.mark.host

# The state of a host: every file with its owner and mode, every user, package and unit. Left out: what the host itself
# writes continuously (logs, temporary files, apt's lists and caches, the linker's cache), and the packages' versions:
# a package of the bundle may require an upgrade.
_SNAPSHOT = """
find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/tmp -o -path /var/log \
  -o -path /var/cache/apt -o -path /var/lib/apt -o -path /var/cache/ldconfig -o -path /var/lib/systemd \\) \
  -prune -o -printf '%p %y %m %u %g\\n' | sort
cat /etc/passwd /etc/group | sort
dpkg --get-selections | sort
systemctl list-unit-files --no-legend | grep --invert-match transient | sort
systemctl list-units --failed --no-legend --plain
"""


@pytest.fixture(scope="module")
def served():
    model.ensure()
    yield host.up("test-served", network="isolated")
    host.down("test-served")


@pytest.fixture
def cut_off(served, inventory, tmp_path):
    """Start zorac-deploy in the network of the isolated host, with its own cache."""

    def started(*arguments):
        inside = ["ip", "netns", "exec", host._namespace(served.name)]
        return subprocess.Popen(
            [*inside, "zorac-deploy", *map(str, arguments), "--inventory", str(inventory)],
            cwd=tmp_path,
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


@pytest.fixture
def snapshot_folder(tmp_path):
    """The model in a hub's cache: links to blobs, and files that are not part of a model."""
    whole = model.ensure()
    cache = tmp_path / f"models--zorac--{whole.name}"
    folder = cache / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    shutil.copytree(whole, cache / "blobs")
    for file in whole.iterdir():
        (folder / file.name).symlink_to(f"../../blobs/{file.name}")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("url = https://me:secret@example.com/model")
    (folder / ".env").write_text("SECRET=1")
    return folder


@pytest.fixture
def inventory(served, snapshot_folder, tmp_path):
    text = served.inventory.read_text()
    source = tmp_path / "inventory.yml"
    source.write_text(re.sub("model_weights_source:.*", f"model_weights_source: {snapshot_folder}", text))
    return source


# A unit with the engine's name, as a user may have created it before.
_HAND_MADE = """
cd /etc/systemd/system
mkdir vllm.service.d
printf '[Service]\\nExecStart=sleep infinity\\n[Install]\\nWantedBy=default.target\\n' > vllm.service
printf '[Service]\\nEnvironment=LEAKED=yes\\n' > vllm.service.d/leaked.conf
chmod 640 vllm.service
systemctl enable --now --quiet vllm.service
"""


def snapshot(served):
    command = host.ssh_command(served, "sudo", "bash")
    return subprocess.run(command, input=_SNAPSHOT, capture_output=True, text=True, check=True).stdout.splitlines()


def test_a_deployment_from_a_bundle_to_down(run, cut_off, inside, served, inventory, snapshot_folder, tmp_path):
    assert inside(served, "ls /srv") == ""  # neither wheels nor a cache of this machine
    nothing = ["ip", "netns", "exec", host._namespace(served.name), "getent", "hosts", "pypi.org"]
    assert subprocess.run(nothing, check=False).returncode != 0
    inside(served, f"sudo sh -c {shlex.quote(_HAND_MADE)}")
    before = snapshot(served)
    bundle = _bundle(run, snapshot_folder, tmp_path)

    # A foreign unit is not replaced without the option.
    refusal = run("plan", "--inventory", inventory)
    assert refusal.returncode == 92, refusal.stdout + refusal.stderr
    assert "/etc/systemd/system/vllm.service.d/leaked.conf" in refusal.stderr.replace("\n", "")

    # Ctrl-C during the engine's installation.
    process = cut_off("up", "--replace-unit", "--bundle", bundle)
    for line in process.stdout:
        if "Ensure the engine's virtual environment exists" in line:
            break

    # While it runs, a second run is refused, and names the first.
    second = run("up", "--inventory", inventory)
    assert second.returncode == 14, second.stderr
    assert re.search(
        rf"another zorac-deploy run holds the lock of test-served: \w+@\S+ \(process {process.pid}\)", second.stderr
    )

    process.send_signal(signal.SIGINT)
    rest = "".join(process.communicate(timeout=60))
    assert process.returncode == 130, rest
    assert "re-run the command to continue" in rest.replace("\n", " ")

    # The same command continues and converges; once more changes nothing, and says so.
    first = cut_off("up", "--replace-unit", "--bundle", bundle)
    told, complaint = first.communicate()
    assert first.returncode == 0, told + complaint
    assert "tokens/s" in told
    left = inside(served, "ls -A /opt/zorac-deploy /var/lib/zorac-deploy").split()
    assert not {"wheels", "offline-packages"} & set(left)
    assert "LEAKED" not in inside(served, "systemctl show vllm --property=Environment")
    _repaired(run, inside, served, inventory, snapshot_folder)
    again = cut_off("up", "--bundle", bundle, "--json")
    told, complaint = again.communicate()
    assert again.returncode == 0, complaint
    assert json.loads(told)["changed"] == []

    plan = run("plan", "--inventory", inventory)
    assert "fits: a request of 4096 tokens" in plan.stdout, plan.stdout + plan.stderr
    assert "nothing would change" in plan.stdout

    _used(run, inside, served, inventory, tmp_path)
    _diagnosed(run, inventory, tmp_path)

    # An engine that has just ended leaves no failed unit behind.
    inside(served, "sudo systemctl kill --signal=KILL vllm")
    down = run("down", "--yes", "--purge", "--inventory", inventory)
    assert down.returncode == 0, down.stderr
    after = snapshot(served)
    assert [line for line in after if line not in set(before)] == []
    assert [line for line in before if line not in set(after)] == []
    assert inside(served, "systemctl is-active vllm; systemctl is-enabled vllm").split() == ["active", "enabled"]


def _bundle(run, snapshot_folder, tmp_path):
    """A bundle in parts for the host."""
    folder = tmp_path / "bundle"
    words = ["--engine", "cpu-0.32.0", "--system", "debian12", "--model", snapshot_folder, "--part-size", "200M"]
    made = run("bundle", "create", *words, "--output", folder)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "not included" not in made.stdout
    assert max(path.stat().st_size for path in folder.iterdir()) == 200 * 2**20
    return folder


def _repaired(run, inside, served, inventory, snapshot_folder):
    """A stored model is made readable again, and what an earlier version copied with it is removed."""
    names = "sudo sh -c 'cd /var/lib/zorac-deploy/models/SmolLM2-135M-Instruct-*/ && find . -printf \"%P %m %u %g\\n\"'"
    before = sorted(inside(served, names).splitlines())
    assert ".git" not in str(before)
    assert ".env" not in str(before)
    inside(
        served,
        "sudo sh -c 'cd /var/lib/zorac-deploy/models && chgrp -R daemon . && chmod 700 . && cd SmolLM2-* && mkdir .git "
        "&& touch .env .git/config'",
    )
    pulled = run("model", "pull", snapshot_folder, "--json", "--inventory", inventory)
    assert pulled.returncode == 0, pulled.stderr
    assert len(json.loads(pulled.stdout)["changed"]) == 3
    assert sorted(inside(served, names).splitlines()) == before


def _tunnelled(inventory, tmp_path, key):
    """The endpoint on a port of this machine, twice: the first tunnel has to free it."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for _ in range(2):
        command = ["zorac-deploy", "tunnel", "--port", str(port), "--inventory", str(inventory)]
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        assert f"http://localhost:{port}/v1" in process.stdout.readline()
        request = urllib.request.Request(
            f"http://localhost:{port}/v1/models", headers={"Authorization": f"Bearer {key}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - our own address
            assert json.load(answer)["data"]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def _diagnosed(run, inventory, tmp_path):
    """The doctor names a key that the client does not know, and the command that it prints cures it."""
    environment = os.environ | {"ZORAC_DIR": str(tmp_path / "zorac")}

    def doctor():
        done = run("doctor", "--json", "--inventory", inventory, env=environment)
        return {finding["id"]: finding["fix"] for finding in json.loads(done.stdout)}

    run("client-config", "--write", "--inventory", inventory, env=environment)
    assert doctor() == {}

    settings = tmp_path / "zorac/config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"VLLM_API_KEY": "another"}))
    findings = doctor()
    assert list(findings) == ["api_key_401"]
    subprocess.run(["sh", "-c", findings["api_key_401"]], cwd=tmp_path, env=environment, check=True)
    assert doctor() == {}


def _used(run, inside, served, inventory, tmp_path):
    smoke = json.loads(run("smoke", "--json", "--inventory", inventory).stdout)
    assert smoke["passed"], smoke
    assert smoke["measures"]["completion_tokens"] > 0

    status = json.loads(run("status", "--json", "--inventory", inventory).stdout)
    assert status["healthy"]
    assert status["enabled"]
    assert (status["profile"], status["engine"], status["restarts"]) == ("cpu", "cpu-0.32.0", 0)
    assert abs(status["since"] - time.time()) < 3600
    assert status["plan"]["predicted"]["kv_tokens"] == status["logged"]["kv_tokens"]

    zorac = json.loads(run("client-config", "--inventory", inventory).stdout)
    assert int(zorac["MAX_INPUT_TOKENS"]) + int(zorac["MAX_OUTPUT_TOKENS"]) < 4096

    _tunnelled(inventory, tmp_path, zorac["VLLM_API_KEY"])

    reply = run("chat", "-m", "What is the capital of France?", "--max-tokens", 60, "--inventory", inventory)
    assert len(reply.stdout) > 20, reply.stderr  # a real reply; a small model's content does not matter
    talk = run("chat", "--max-tokens", 20, "--inventory", inventory, input="My name is Ada.\n/new\nSay hello.\n/quit\n")
    assert talk.returncode == 0, talk.stderr

    journal = run("logs", "--lines", "2000", "--inventory", inventory).stdout
    assert "Application startup complete" in journal
    key = inside(served, "sudo cat /etc/zorac-deploy/api-key").strip()
    assert key not in journal

    # A killed engine is restarted, and a client gets an error meanwhile.
    inside(served, "sudo systemctl kill --signal=KILL vllm")
    time.sleep(1)
    broken = run("status", "--json", "--inventory", inventory)
    assert broken.returncode == 41
    assert not json.loads(broken.stdout)["healthy"]

    # Meanwhile, `up` waits for systemd's restart.
    waited = run("up", "--json", "--inventory", inventory)
    assert waited.returncode == 0, waited.stdout + waited.stderr
    assert json.loads(run("status", "--json", "--inventory", inventory).stdout)["restarts"] == 1

    # An sshd that allows one session at a time, which the lock's holder uses: ssh warns and opens a new connection.
    inside(served, "echo MaxSessions 1 | sudo tee /etc/ssh/sshd_config.d/one.conf && sudo systemctl reload ssh")
    unknown = run("rollback", "99", "--inventory", inventory)
    assert unknown.returncode == 33, unknown.stdout + unknown.stderr
    assert "generation 99 does not exist" in unknown.stderr
    inside(served, "sudo rm /etc/ssh/sshd_config.d/one.conf && sudo systemctl reload ssh")

    # A context that does not fit is refused before anything is stopped, in vLLM's own words.
    long = run("up", "--context", 999999, "--inventory", inventory)
    assert long.returncode == 38, long.stdout + long.stderr
    assert "max_model_len (999999) is greater than" in long.stderr.replace("\n", " ")

    # A setting that only vLLM refuses is reported with its message as soon as it is logged, and rolled back.
    source = tmp_path / "wrong.yml"
    flags = "vllm_service_extra_flags: {nonsense: 1}"
    source.write_text(inventory.read_text().replace("model_weights_source:", f"{flags}\n      model_weights_source:"))
    wrong = run("up", "--inventory", source)
    assert wrong.returncode == 32, wrong.stdout + wrong.stderr
    assert "nonsense" in wrong.stderr
    whole = json.loads(run("status", "--json", "--inventory", inventory).stdout)
    assert (whole["generation"], whole["healthy"], whole["max_model_len"]) == (1, True, 4096)
