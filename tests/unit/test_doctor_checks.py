"""zorac_deploy/doctor: what the probes' facts of a host mean."""

import copy
import hashlib
import json
from pathlib import Path

import pytest

from zorac_deploy.connection import Connection
from zorac_deploy.doctor import host, rules, xid, zorac
from zorac_deploy.inventory import Target

_RULES = [rule.rule() for rule in rules.shipped()]
_HEALTHY = {
    "system": {"id": "debian", "version": "12", "kernel": "6.1.0-40-amd64"},
    "disks": [{"path": "/", "free": 40 << 30, "size": 90 << 30, "inodes_free": 5_000_000, "read_only": False}],
    "packages": {"unsettled": {}, "apt": "Reading package lists...", "lock": None},
    "gpus": {
        "cards": [{"address": "0000:01:00.0", "device": "0x2684", "driver": "nvidia"}],
        "gpus": [],
        "holders": [
            {"gpu": "GPU-1", "pid": 77, "name": "VLLM::EngineCore", "unit": "vllm.service", "used_mib": 21_700}
        ],
        "smi_error": None,
        "driver": {"loaded": "580.95.05", "installed": "580.95.05", "library": "580.95.05"},
        "nouveau_loaded": False,
        "secure_boot": False,
        "kernel": "6.1.0-40-amd64",
        "kernel_headers": True,
    },
    "gpu_health": [
        {
            "index": "0",
            "temperature.gpu": "61",
            "pcie.link.width.current": "16",
            "pcie.link.width.max": "16",
            "ecc.errors.uncorrected.volatile.total": "[N/A]",
            "clocks_throttle_reasons.hw_thermal_slowdown": "Not Active",
        }
    ],
    "dkms": "nvidia/580.95.05, 6.1.0-40-amd64, x86_64: installed\n",
    "engine_log": "",
    "kernel_log": "kernel: NVRM: loading NVIDIA UNIX x86_64 Kernel Module  580.95.05",
    "listeners": [{"name": "vllm", "pid": 70, "unit": "vllm.service"}],
    "endpoint": {"health": 200, "models": 200, "open": 401, "served": ["mistral"], "metrics": {}, "key_sha256": ""},
    "verification": {"unusable": "", "pending": None, "differences": []},
    "status": {"pending": None, "watchdog": {}},
    "unit": {
        "Id": "vllm.service",
        "LoadState": "loaded",
        "UnitFileState": "enabled",
        "ActiveState": "active",
        "SubState": "running",
        "NRestarts": "0",
        "NeedDaemonReload": "no",
    },
    "units": [{"Id": "vllm.service", "LoadState": "loaded"}],
    "about": {"host": "127.0.0.1", "port": 8000, "number": 3, "max_model_len": 32_768},
}
_OFF = {"unit/ActiveState": "failed", "endpoint/health": 0, "listeners": []}
_DRIVER_OFF = {"gpus/driver/loaded": None, "gpus/smi_error": "NVIDIA-SMI has failed because it couldn't communicate"}
_TREE = {"kind": "tree", "part": "/x", "aspect": "missing", "expected": "", "found": "a.py"}


def changed(changes):
    facts = copy.deepcopy(_HEALTHY)
    for place, value in changes.items():
        *path, last = place.split("/")
        at = facts
        for key in path:
            at = at[int(key)] if isinstance(at, list) else at[key]
        at[int(last) if isinstance(at, list) else last] = value
    return facts


def found(changes):
    return host.diagnose(changed(changes), _RULES, "tower")


def test_a_healthy_host_has_nothing_wrong():
    assert found({}) == []


@pytest.mark.parametrize(
    ("changes", "first", "typed"),
    [
        ({"disks/0/free": 1 << 20}, "disk_full", "journalctl --vacuum-size"),
        ({"disks/0/inodes_free": 3}, "disk_full", "du --inodes"),
        ({"disks/0/read_only": True}, "disk_read_only", "reboot"),
        ({"packages/unsettled": {"dash": "half-configured"}}, "apt_held_broken", "dpkg --configure -a"),
        ({"packages/apt": "E: Unmet dependencies. Try"}, "apt_held_broken", "--fix-broken"),
        ({"packages/lock": {"pid": 9, "name": "apt-get"}}, "dpkg_locked", "Lock::Timeout"),
        ({"gpus/driver/loaded": "570.1.2"}, "driver_library_mismatch", "sudo reboot"),
        ({"gpus/driver/library": "570.1.2"}, "driver_library_mismatch", "dkms autoinstall"),
        ({**_DRIVER_OFF, "gpus/nouveau_loaded": True}, "nouveau_loaded", "blacklist nouveau"),
        ({**_DRIVER_OFF, "gpus/secure_boot": True}, "secure_boot", "mokutil --import"),
        ({**_DRIVER_OFF, "dkms": "nvidia/580: added\n"}, "dkms_build_failed", "dkms autoinstall"),
        (
            {**_DRIVER_OFF, "dkms": "nvidia/580: added\n", "gpus/kernel_headers": False},
            "kernel_headers_missing",
            "install linux-headers-",
        ),
        (_DRIVER_OFF, "module_not_loaded", "modprobe nvidia"),
        ({**_DRIVER_OFF, "gpus/driver/installed": None, "dkms": ""}, "module_not_loaded", "zorac-deploy up tower"),
        ({"gpus/smi_error": "No devices were found"}, "no_devices_found", "grep NVRM"),
        ({"gpu_health/0/ecc.errors.uncorrected.volatile.total": "2"}, "ecc_xid", "--gpu-reset -i 0"),
        ({"gpu_health/0/remapped_rows.failure": "Yes"}, "ecc_xid", "RMA"),
        ({"gpu_health/0/remapped_rows.pending": "Yes"}, "ecc_xid", "--gpu-reset -i 0"),
        ({"gpu_health/0/pcie.link.width.current": "4"}, "pcie_link_narrow", "slot"),
        ({"gpu_health/0/clocks_throttle_reasons.hw_thermal_slowdown": "Active"}, "gpu_throttled", "TEMPERATURE"),
        ({"kernel_log": "NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off"}, "gpu_off_bus_xid79", "cut its power"),
        ({"kernel_log": "NVRM: Xid (PCI:0000:01:00): 31, pid=7, MMU Fault"}, "xid_program", "Upgrade vLLM"),
        ({"listeners/0/unit": "nginx.service"}, "address_in_use", "systemctl stop nginx.service"),
        ({"listeners/0/unit": "session-3.scope"}, "address_in_use", "kill 70"),
        ({**_OFF, "gpus/holders/0/unit": "trainer.service"}, "free_memory_lt_util", "stop trainer.service"),
        ({**_OFF, "engine_log": "torch.OutOfMemoryError: CUDA out of memory."}, "cuda_oom", "--max-model-len"),
        (_OFF, "unit_failed", "systemctl start vllm.service"),
        (
            {**_OFF, "unit/ActiveState": "activating", "unit/NRestarts": "1"},
            "unit_restarting",
            "journalctl -u vllm.service -f",
        ),
        ({**_OFF, "unit/LoadState": "masked"}, "unit_masked", "systemctl unmask vllm.service"),
        ({**_OFF, "unit/ActiveState": "inactive"}, "unit_stopped", "enable --now vllm.service"),
        ({"unit/UnitFileState": "disabled"}, "unit_disabled", "systemctl enable vllm.service"),
        ({"unit/NeedDaemonReload": "yes"}, "daemon_reload_needed", "daemon-reload"),
        ({"endpoint/health": 0}, "endpoint_silent", "systemctl restart vllm.service"),
        ({"endpoint/models": 401}, "api_key_401", "restart vllm.service"),
        ({"endpoint/open": 200, "about/host": "192.168.1.5"}, "endpoint_open", "zorac-deploy up tower"),
        (
            {"endpoint/metrics": {"kv_cache_usage_perc": 1.0, "num_requests_waiting": 4}},
            "kv_cache_full",
            "--context",
        ),
        ({"verification/differences": [{"owner": "engine", **_TREE}]}, "engine_damaged", "zorac-deploy up tower"),
        ({"verification/differences": [{"owner": "model_weights", **_TREE}]}, "model_damaged", "zorac-deploy up tower"),
        ({"status/watchdog": {"gave_up": "twice in an hour"}}, "watchdog_gave_up", "zorac-deploy generations tower"),
    ],
)
def test_a_fault_is_named_first_with_what_to_type(changes, first, typed):
    trouble, *_ = found(changes)
    assert trouble.id == first
    assert typed in trouble.fix
    assert trouble.evidence
    assert set(trouble.summary()) > {"id", "cause", "evidence", "fix", "not_to_advise", "second_signal", "confidence"}


def test_what_a_log_says_of_a_port_is_answered_by_the_look_at_the_port():
    log = "[Errno 98] error while attempting to bind on address ('0.0.0.0', 8000): address already in use"
    assert [trouble.id for trouble in found({**_OFF, "engine_log": log})] == ["unit_failed"]


def test_the_engines_log_counts_only_while_it_does_not_serve():
    assert found({"engine_log": "torch.OutOfMemoryError: CUDA out of memory."}) == []


def test_a_probe_that_failed_hides_no_other():
    facts = changed({"disks/0/free": 0})
    for name in ("gpus", "packages", "verification", "endpoint", "status", "gpu_health", "engine_log"):
        facts[name] = {"failed": "OSError: no"}
    assert [trouble.id for trouble in host.diagnose(facts, _RULES, "tower")] == ["disk_full"]
    assert [trouble.id for trouble in host.diagnose({}, _RULES, "tower")] == []


def test_every_safe_cure_is_also_what_the_person_reads():
    for changes in (_OFF, {"packages/unsettled": {"dash": "half-configured"}}, {"unit/UnitFileState": "disabled"}):
        (trouble,) = found(changes)
        for command in trouble.safe:
            assert command.split()[-1] in trouble.fix


def test_each_xid_is_told_once_for_a_gpu():
    line = "kernel: NVRM: Xid (PCI:0000:{}:00): {}, pid=1"
    events = list(xid.events("\n".join([line.format("01", 63)] * 3 + [line.format("02", 63), line.format("01", 999)])))
    assert [event.finding for event in events] == ["ecc_xid", "ecc_xid", "xid_unknown"]


@pytest.fixture
def settings(monkeypatch, tmp_path):
    monkeypatch.setenv("ZORAC_CONFIG_FILE", str(tmp_path / "config.json"))

    def written(**values):
        (tmp_path / "config.json").write_text(json.dumps({"VLLM_BASE_URL": "http://localhost:8000/v1", **values}))
        facts = changed({"endpoint/key_sha256": hashlib.sha256(b"right").hexdigest()})
        target = Target("tower", "headless", "10.0.0.9")
        return [trouble.id for trouble in zorac.troubles(Connection(target), facts, "tower")]

    return written


def test_zoracs_settings_are_compared_with_what_the_host_serves(settings):
    assert settings(VLLM_API_KEY="right", VLLM_MODEL="mistral") == []
    assert settings(VLLM_API_KEY="wrong", VLLM_MODEL="mistral") == ["api_key_401"]
    assert settings(VLLM_API_KEY="right", VLLM_MODEL="other") == ["model_name_404"]
    tokens = {"MAX_INPUT_TOKENS": "32000", "MAX_OUTPUT_TOKENS": "4000"}
    assert settings(VLLM_API_KEY="right", VLLM_MODEL="mistral", **tokens) == ["context_overflow"]
    assert settings(VLLM_API_KEY="wrong", VLLM_BASE_URL="http://elsewhere:8000/v1") == []


def test_what_a_real_h200_answers_is_understood():
    facts = json.loads((Path(__file__).parent / "facts-h200.json").read_text())
    assert [trouble.id for trouble in host.diagnose(facts, _RULES, "tower")] == ["no_engine"]
    facts["units"] = _HEALTHY["units"]
    facts["unit"] = {**_HEALTHY["unit"], "ActiveState": "failed"}
    held, failed = host.diagnose(facts, _RULES, "tower")
    assert (held.id, failed.id) == ("free_memory_lt_util", "unit_failed")
    assert "python3 (process 519)" in held.evidence
    assert "sudo kill 519" in held.fix


@pytest.mark.parametrize(("resolves", "cause"), [(False, "cannot resolve huggingface.co"), (True, "no way to")])
def test_a_download_that_fails_is_explained_by_the_hosts_name_resolution(resolves, cause):
    log = "curl: (6) Could not resolve host: huggingface.co"
    facts = {"system": {"id": "debian", "resolves": resolves}, "engine_log": log}
    [trouble] = host.diagnose(facts, _RULES, "tower")
    assert trouble.id == "hf_connection"
    assert cause in trouble.cause
    assert bool(trouble.second_signal) is resolves
    assert ("resolvectl status" in trouble.fix) is not resolves
