"""plugins/modules/whole_file.py: the old file or the new one, and nothing in between."""

import base64
import json
import os
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args

from tests.unit.roles import plugin

whole_file = plugin("modules", "whole_file")


@pytest.fixture
def have(tmp_path, capsys):
    """Run the module as Ansible does; its answer."""

    def run(content, mode="0755"):
        path = tmp_path / "file"
        arguments = {"path": str(path), "content": base64.b64encode(content).decode(), "mode": mode}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            whole_file.main()
        return json.loads(capsys.readouterr().out)

    return run


def test_a_write_that_is_cut_off_leaves_the_old_file_alone(have, tmp_path, monkeypatch):
    have(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        have(b"new")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"old"}


def test_it_is_complete_before_it_has_its_name(have, monkeypatch):
    seen = []

    def rename(scratch, path):
        seen.append((scratch.read_bytes(), scratch.stat().st_mode & 0o777))
        scratch.replace(path)

    monkeypatch.setattr(Path, "rename", rename)
    have(b"new", mode="0700")
    assert seen == [(b"new", 0o700)]


def test_a_mode_alone_is_a_change_and_a_link_is_replaced(have, tmp_path):
    assert have(b"new")["changed"]
    assert not have(b"new")["changed"]
    assert have(b"new", mode="0700")["changed"]
    other = (tmp_path / "file").rename(tmp_path / "other")
    (tmp_path / "file").symlink_to(other)
    assert have(b"changed")["changed"]
    assert (other.read_bytes(), (tmp_path / "file").is_symlink()) == (b"new", False)
