"""What cannot work is refused with its own exit code, and changes nothing: through the whole command line.

molecule/refusals tests each role's refusals; here are how a refusal is reported, and the failures of SSH.
"""

import re

import pytest
import yaml

from zorac_deploy.sandbox import host, model

pytestmark = pytest.mark.host


@pytest.fixture
def inventory(offline, tmp_path):
    """Write an inventory of the offline host that differs in some variables."""

    def written(**changes):
        tree = yaml.safe_load(offline.inventory.read_text())
        tree["cpu"]["hosts"][offline.name] |= changes
        path = tmp_path / "inventory.yml"
        path.write_text(yaml.safe_dump(tree))
        return path

    return written


def refused(outcome, code, says):
    assert outcome.returncode == code, outcome.stdout + outcome.stderr
    assert re.search(says, outcome.stderr), outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_port_in_use_is_refused_and_its_process_named(run, inventory, offline, inside):
    inside(offline, "sudo systemd-run --quiet --unit=squatter python3 -m http.server --bind 127.0.0.1 8123")
    inside(offline, "timeout 20 sh -c 'until ss --no-header -ltn sport = :8123 | grep -q 8123; do sleep 0.2; done'")
    outcome = run("up", "--inventory", inventory(vllm_port=8123))
    inside(offline, "sudo systemctl stop squatter")
    refused(outcome, 29, r"port 8123 of 127.0.0.1 is in use by python3 \(process \d+ of squatter.service")


def test_a_privileged_port_is_refused(run, inventory):
    refused(run("up", "--inventory", inventory(vllm_port=22)), 39, "vllm_port is 22.*cannot listen below 1024")


def test_a_missing_model(run, inventory):
    refused(
        run("up", "--inventory", inventory(), "--model", "/no/such"), 25, "model not found on this machine: /no/such"
    )


def test_no_space_for_the_engine(run, inventory):
    refused(run("up", "--inventory", inventory(engine_required_gib=9e6)), 23, "needs 9000000.0 GiB")


def test_an_unsupported_distribution(run, inventory):
    outcome = run("up", "--inventory", inventory(host_preflight_systems=["Ubuntu 24.04"]))
    refused(outcome, 20, r"runs Debian 12 on\s+x86_64. Needed: Ubuntu 24.04")


@pytest.fixture
def with_card(offline, tmp_path):
    """Write an inventory in which the offline host has a GPU profile."""

    def written(settings=""):
        source = tmp_path / "headless.yml"
        text = offline.inventory.read_text().replace("cpu:", "headless:", 1)
        source.write_text(text.replace("model_weights_source:", f"{settings}\n      model_weights_source:", 1))
        return source

    return written


def test_a_gpu_profile_on_a_host_without_a_gpu(run, with_card):
    outcome = run("up", "--inventory", with_card())
    refused(outcome, 60, "no NVIDIA GPU found on the PCI bus")


@pytest.mark.parametrize("server", ["auto", "vllm", "llama_cpp"])
def test_down_needs_no_gpu(run, with_card, server):
    outcome = run("down", "--yes", "--inventory", with_card(f"model_server: {server}"))
    assert outcome.returncode == 0, outcome.stderr
    assert "nothing to remove" in outcome.stdout


def test_the_wrong_ssh_key(run, inventory, tmp_path):
    host._run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other"))
    outcome = run("up", "--inventory", inventory(ansible_ssh_private_key_file=str(tmp_path / "other")))
    refused(outcome, 11, "refuses the SSH key")


def test_a_changed_host_key(run, inventory, offline, tmp_path):
    (tmp_path / "known").write_text(
        re.sub(r"AAAAC3\S+", _other_key(tmp_path), (offline.folder / "known_hosts").read_text())
    )
    outcome = run("up", "--inventory", inventory(ansible_ssh_common_args=f"-o UserKnownHostsFile={tmp_path}/known"))
    refused(outcome, 12, "ssh-keygen -R")


def _other_key(folder):
    host._run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "hostkey"))
    return (folder / "hostkey.pub").read_text().split()[1]


def test_a_user_without_sudo_rights(run, inventory, offline, inside):
    inside(offline, "id plain 2>/dev/null || sudo useradd --create-home --shell /bin/bash plain")
    inside(offline, "sudo cp -r /home/admin/.ssh /home/plain/ && sudo chown -R plain: /home/plain/.ssh")
    outcome = run("up", "--inventory", inventory(ansible_user="plain"))
    refused(outcome, 13, "cannot become root.*--ask-become-pass")


def test_a_user_whose_sudo_needs_a_password(run, inventory, offline, inside):
    inside(offline, "id asked 2>/dev/null || sudo useradd --create-home --shell /bin/bash --groups sudo asked")
    inside(offline, "echo asked:opensesame | sudo chpasswd")
    inside(offline, "sudo cp -r /home/admin/.ssh /home/asked/ && sudo chown -R asked: /home/asked/.ssh")
    source = inventory(ansible_user="asked", vllm_port=22)
    refused(run("up", "--inventory", source), 13, "password is required")
    refused(run("up", "-K", "--inventory", source, input="wrong\n"), 13, "cannot become root")
    # With the right one, it continues to the port that a service cannot use.
    refused(run("up", "-K", "--inventory", source, input="opensesame\n"), 39, "cannot listen below 1024")


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (
            "useradd --create-home --shell /bin/bash --uid 1500 vllm",
            "user vllm (uid 1500, home /home/vllm, shell /bin/bash)",
        ),
        ("groupadd vllm", "group vllm"),
    ],
)
def test_an_account_with_the_engines_name_is_not_changed(run, inventory, offline, inside, made, named):
    accounts = "getent passwd vllm zorac-vllm; getent group vllm zorac-vllm; true"
    inside(offline, f"sudo {made}")
    before = inside(offline, accounts)
    try:
        for verb in (("up",), ("model", "pull", model.ensure())):
            refused(
                run(*verb, "--inventory", inventory()), 93, re.escape(f"has a {named} that zorac-deploy did not create")
            )
        assert run("down", "--yes", "--inventory", inventory()).returncode == 0
        # With a free name it continues.
        refused(run("up", "--inventory", inventory(engine_user="zorac-vllm", engine_required_gib=9e6)), 23, "needs")
        assert inside(offline, accounts) == before
    finally:
        inside(offline, "sudo userdel --remove vllm 2>/dev/null || sudo groupdel vllm")


def test_check_shows_what_would_change_and_changes_nothing(run, inventory, offline, inside):
    model.ensure()
    source = inventory()
    outcome = run("up", "--check", "--inventory", source)
    assert outcome.returncode == 0, outcome.stderr
    assert "+ProtectSystem=strict" in outcome.stdout
    assert re.search(r"\d\d tasks would change something", outcome.stdout)
    assert inside(offline, "ls -d /etc/zorac-deploy /opt/zorac-deploy 2>/dev/null; id vllm 2>/dev/null; true") == ""


def test_nothing_deployed_is_reported(run, inventory, offline):
    source = inventory()
    says = f"nothing is deployed on {offline.name}. Deploy it with: zorac-deploy up"
    for verb in ("status", "smoke", "chat"):
        refused(run(verb, "--inventory", source), 42, says)
    outcome = run("down", "--yes", "--inventory", source)
    assert outcome.returncode == 0
    assert "nothing to remove" in outcome.stdout
