"""plugins/modules/generation.py: the same files are the same generation, others become a new one."""

import errno
import json
import os

import pytest
from ansible.module_utils.testing import patch_module_args

from tests.unit.roles import plugin

generation = plugin("modules", "generation")

FILES = {"vllm.service": "ExecStart=serve @GENERATION@/vllm.yaml\n", "vllm.yaml": "port: 8000\n"}
ABOUT = {"profile": "headless", "plan": {"max_model_len": 32768}}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "etc"


@pytest.fixture
def have(root, capsys):
    """Run the module as Ansible does, and return its answer."""

    def run(files=FILES, about=ABOUT, check=False, says=0):
        arguments = {"root": str(root), "files": files, "about": about, "_ansible_check_mode": check}
        with patch_module_args(arguments), pytest.raises(SystemExit) as ended:
            generation.main()
        assert ended.value.code == says
        return json.loads(capsys.readouterr().out)

    return run


def folders(root):
    return sorted(path.name for path in (root / "generations").iterdir())


def told(answer):
    return answer["number"], answer["changed"]


def test_the_first_generation_is_1_and_is_read_only(have, root):
    assert told(have()) == (1, True)
    folder = root / "generations" / "1"
    assert (folder / "vllm.service").read_text() == f"ExecStart=serve {folder}/vllm.yaml\n"
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == dict.fromkeys(
        ("vllm.service", "vllm.yaml", "generation.json"), 0o444
    )
    described = json.loads((folder / "generation.json").read_text())
    assert ABOUT.items() <= described.items()
    assert described["number"] == 1


def test_the_engines_user_can_read_it_with_any_umask(have, root):
    before = os.umask(0o077)
    try:
        have()
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (root / "generations", root / "generations" / "1")] == [0o755] * 2


def test_the_same_files_change_nothing(have, root):
    have()
    before = (root / "generations" / "1").stat().st_mtime_ns
    assert told(have()) == (1, False)
    assert (folders(root), (root / "generations" / "1").stat().st_mtime_ns) == (["1"], before)


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_damaged_file_is_restored(have, root, damage):
    have()
    path = root / "generations/1/vllm.yaml"
    path.unlink()
    if damage == "changed":
        path.write_text("port: 9000\n")
    assert have(check=True)["repaired"] == ["vllm.yaml"]
    answer = have()
    assert (told(answer), answer["repaired"]) == ((1, True), ["vllm.yaml"])
    assert (path.read_text(), path.stat().st_mode & 0o777) == (FILES["vllm.yaml"], 0o444)
    assert told(have()) == (1, False)


@pytest.mark.parametrize("other", [{"files": {**FILES, "vllm.yaml": ""}}, {"about": {**ABOUT, "profile": "display"}}])
def test_other_files_are_a_new_generation_and_the_old_ones_are_reused(have, root, other):
    have()
    assert told(have(**other)) == (2, True)
    assert told(have()) == (1, False)
    assert folders(root) == ["1", "2"]


def test_a_number_is_never_reused(have, root):
    (root / "generations" / "11").mkdir(parents=True)
    (root / "generations" / "9").mkdir()
    assert told(have()) == (12, True)


def test_a_dry_run_writes_nothing_and_shows_what_would_differ(have, root):
    answer = have(check=True)
    assert told(answer) == (1, True)
    assert not root.exists()
    assert {each["after_header"]: each["before"] for each in answer["diff"]} == {
        "wanted/vllm.service": "",
        "wanted/vllm.yaml": "",
        "wanted/generation.json": "",
    }


def test_the_diff_is_to_the_current_one_without_the_directorys_name(have, root):
    have()
    (root / "current").symlink_to("generations/1")
    have(files={**FILES, "vllm.yaml": "port: 8001\n"})
    assert have()["diff"] == []
    (difference,) = have(files={**FILES, "vllm.yaml": "port: 8002\n"}, check=True)["diff"]
    assert (difference["before"], difference["after"]) == ("port: 8000\n", "port: 8002\n")
    assert (difference["before_header"], difference["after_header"]) == ("current/vllm.yaml", "wanted/vllm.yaml")


def test_a_killed_runs_files_are_removed(have, root):
    (root / "generations" / "1.partial" / "deep").mkdir(parents=True)
    (root / "generations" / "7.partial").mkdir()
    assert told(have()) == (1, True)
    assert folders(root) == ["1"]


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported_and_leaves_no_directory(have, root, monkeypatch, kind):
    have()

    def full(_):
        raise OSError(kind, os.strerror(kind))

    monkeypatch.setattr(os, "fsync", full)
    answer = have(files={}, says=1)
    assert answer["msg"].startswith("no space left")
    assert answer["refusal"] == {"id": "disk-full", "message": answer["msg"]}
    assert "The running generation is not changed." in answer["msg"]
    assert folders(root) == ["1"]


@pytest.mark.parametrize("what", [{"plan": {"predicted": {"weights_gib": 13.3}}}, {"model_source": "hf://org/name"}])
def test_another_prediction_or_source_of_the_same_files_is_no_new_generation(have, what):
    have()
    assert told(have(about={**ABOUT, **what})) == (1, False)
