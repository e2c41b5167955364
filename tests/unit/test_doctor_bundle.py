"""zorac_deploy/doctor/redact.py and bundle.py: nothing private comes out, and what matters does."""

import io
import json
import tarfile

import pytest
from click.testing import CliRunner

from tests.unit.test_doctor_checks import _RULES, changed
from zorac_deploy.cli import cli
from zorac_deploy.connection import Connection
from zorac_deploy.doctor import bundle, host
from zorac_deploy.doctor.redact import Redactor
from zorac_deploy.errors import Refused
from zorac_deploy.inventory import Target

_KEY = "3q2-7w_XyZ0123456789abcdefKEY"
_PLANTED = {
    _KEY,
    "hf_AbCdEfGhIjKlMnOpQrStUvWx",
    "sk-proj-0123456789abcdefghij",
    "ghp_0123456789abcdefghijABCDEFGHIJ",
    "AKIAIOSFODNN7EXAMPLE",
    "hunter2secret",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "MIIEowIBAAKCAQEAprivate",
    "my deepest worry",
    "a reply nobody should read",
    "another worry",
    "192.168.7.44",
    "2001:db8:7::44",
    "fe80::1ff:fe23:4567:890a",
    "00:1a:2b:3c:4d:5e",
    "thegreattower",
    "db7.corp",
    "annabelle",
    "annabelle@example.org",
    "proxyuser",
    "proxypass",
}
# ruff: noqa: E501 - lines of logs are as long as they are
_LOG = f"""\
Nov 28 12:00:01 thegreattower systemd[1]: Starting vllm.service - vLLM...
Nov 28 12:00:02 thegreattower vllm[7]: INFO non-default args: {{'host': '192.168.7.44', 'api_key': ['{_KEY}'], 'port': 8000}}
Nov 28 12:00:02 thegreattower vllm[7]: vllm serve /home/annabelle/models/m --api-key {_KEY} --port 8000
Nov 28 12:00:03 thegreattower vllm[7]: HF_TOKEN=hf_AbCdEfGhIjKlMnOpQrStUvWx OPENAI_API_KEY="sk-proj-0123456789abcdefghij"
Nov 28 12:00:03 thegreattower vllm[7]: authorization: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl
Nov 28 12:00:03 thegreattower git[8]: https://annabelle:ghp_0123456789abcdefghijABCDEFGHIJ@github.com/x and AKIAIOSFODNN7EXAMPLE
Nov 28 12:00:03 thegreattower app[9]: {{"password": "hunter2secret", "user": "annabelle"}}
-----BEGIN RSA PRIVATE KEY-----
MIIEowIBAAKCAQEAprivate
-----END RSA PRIVATE KEY-----
Nov 28 12:00:04 thegreattower vllm[7]: INFO Received request chatcmpl-1: prompt: '<s>[INST] my deepest worry, and "more"', params: X
Nov 28 12:00:05 thegreattower vllm[7]: INFO Generated response chatcmpl-1: output: 'a reply nobody should read', finish_reason: stop
Nov 28 12:00:05 thegreattower app[9]: {{"messages": [{{"role": "user", "content": "another worry"}}]}}
Nov 28 12:00:06 thegreattower vllm[7]: INFO: 2001:db8:7::44:51022 - "POST /v1/chat/completions HTTP/1.1" 200 OK
Nov 28 12:00:06 thegreattower kernel: eth0: fe80::1ff:fe23:4567:890a 00:1a:2b:3c:4d:5e db7.corp annabelle@example.org
Nov 28 12:00:09 thegreattower vllm[7]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 350.00 MiB.
"""


@pytest.fixture
def facts():
    found = changed({"unit/ActiveState": "failed", "endpoint/health": 0, "listeners": [], "engine_log": _LOG})
    found["system"] |= {
        "hostname": "thegreattower",
        "users": ["annabelle"],
        "proxy": {"https_proxy": "http://proxyuser:proxypass@192.168.7.44:3128"},
    }
    found["about"] |= {"host": "192.168.7.44", "model_path": "/home/annabelle/models/m"}
    found["kernel_log"] = _LOG
    found["packages"]["apt"] = f"E: token={_KEY} of thegreattower"
    return found


@pytest.fixture
def archive(facts, tmp_path):
    connection = Connection(Target("thegreattower", "headless", "192.168.7.44", user="annabelle"))
    path = tmp_path / "out.tar.gz"
    found = host.diagnose(facts, _RULES, "thegreattower")
    bundle.write(path, facts, found, bundle.redactor(connection, facts, [_KEY]))
    return path


def contents(path):
    with tarfile.open(path) as archive:
        return {entry.name: archive.extractfile(entry).read().decode() for entry in archive}


def test_nothing_that_was_planted_comes_out(archive):
    for name, text in contents(archive).items():
        assert [secret for secret in _PLANTED if secret.lower() in text.lower()] == [], name


def test_the_archive_is_its_owners_alone_and_replaces_nothing(archive, facts):
    assert archive.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Refused, match="cannot be written"):
        bundle.write(archive, facts, [], Redactor())


def test_the_same_is_found_elsewhere(archive, facts):
    here = [trouble.id for trouble in host.diagnose(facts, _RULES, "thegreattower")]
    assert "cuda_oom" in here
    assert [trouble.id for trouble in host.diagnose(bundle.read(str(archive)), _RULES, "HOST")] == here
    done = CliRunner().invoke(cli, ["doctor", "--bundle", str(archive), "--json"])
    assert [finding["id"] for finding in json.loads(done.output)] == here


def test_what_matters_stays():
    clean = Redactor(["sesame-sesame"], ["tower"], ["bob"])
    for text in (
        "Xid (PCI:0000:01:00): 79, pid=1201, name=python3, GPU has fallen off the bus.",
        "ValueError: Free memory on device (0.49/79.32 GiB) on startup is less than desired GPU memory utilization",
        "Found 46,592 tokens at 12:00:04, 127.0.0.1:8000 and 0.0.0.0, driver 580.95.05, kernel 6.1.0-40-amd64",
        "/opt/zorac-deploy/engines/cpu-0.32.0/lib/python3.11/site-packages/vllm/engine/core.py",
        "std::vector c10::Error at ProcessGroupNCCL.cpp:1333",
        "The model's max seq len (4096) is larger than the maximum number of tokens that can be stored in KV cache (3664)",
    ):
        assert clean.text(text) == text
    assert clean.text("towers and bobsled") == "towers and bobsled"
    assert clean.text("tower: bob, bob") == "<host-1>: <user-1>, <user-1>"


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x1f\x8b\x08broken"])
def test_what_is_no_bundle_is_refused(tmp_path, content):
    path = tmp_path / "x.tar.gz"
    path.write_bytes(content)
    with pytest.raises(Refused, match="is no support bundle"):
        bundle.read(str(path))
    with pytest.raises(Refused, match="is no support bundle"):
        bundle.read(str(tmp_path))


def test_an_archive_of_something_else_is_refused_and_nothing_is_unpacked(tmp_path):
    path = tmp_path / "evil.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        entry = tarfile.TarInfo("../../evil")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
        link = tarfile.TarInfo("support-bundle/facts.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(Refused, match="is no support bundle"):
        bundle.read(str(path))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["evil.tar.gz"]
