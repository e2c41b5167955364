"""zorac_deploy/runner.py with real ansible-playbook runs, and how they end."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from zorac_deploy import connection, content, inventory, runner, scratch
from zorac_deploy.errors import DeploymentFailed, Refused, exit_code_of

PASSWORD = "c4n4ry-p4ssw0rd"  # noqa: S105
TOKEN = "hf_c4n4ryT0ken"  # noqa: S105
HERE = inventory.Target("box", "cpu", "localhost", local=True)

# As `up -K`, with a play of this test's own.
DRIVER = """
import signal
import sys
from pathlib import Path
from zorac_deploy import connection, content, inventory, runner
from zorac_deploy.cli import end_cleanly
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup, under which the tests may run, ignores it
end_cleanly()
content.playbook = lambda _: Path("play.yml").absolute()
target = inventory.Target("box", "cpu", "localhost", local=True)
with connection.opened(target, sys.stdin.readline().strip()) as opened:
    shown = lambda step: print(step.task, flush=True)
    runner.run("up", [Path("box.yml").absolute()], opened, Path("run.log"), on_step=shown)
"""

SLEEPER = f"sleep {10**6 + os.getpid()}"  # different in every run of the tests


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The directory of a new user, whose inventory has this machine."""
    monkeypatch.chdir(tmp_path)
    for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        made = tmp_path / name
        made.mkdir()
        monkeypatch.setenv(name, str(made))
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    (tmp_path / "box.yml").write_text(yaml.safe_dump({"cpu": {"hosts": {"box": here}}}))
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # a short path, as the real one has
        monkeypatch.setenv("XDG_RUNTIME_DIR", short)
        (tmp_path / "runtime").symlink_to(short)
        yield tmp_path


def play(folder, *tasks):
    """A playbook of these tasks."""
    (folder / "play.yml").write_text(yaml.safe_dump([{"hosts": "all", "gather_facts": False, "tasks": list(tasks)}]))
    return folder / "play.yml"


def run(folder, monkeypatch, *tasks, password=None, **options):
    """Run `tasks`; return the steps and the result."""
    monkeypatch.setattr(content, "playbook", lambda _: play(folder, *tasks))
    steps = []
    with connection.opened(HERE, password) as opened:
        done = runner.run("up", [folder / "box.yml"], opened, folder / "run.log", on_step=steps.append, **options)
    return steps, done


def test_events_are_yielded_and_the_log_is_written(folder, monkeypatch):
    for name in ("STDOUT_CALLBACK", "VERBOSITY", "LOAD_CALLBACK_PLUGINS", "CALLBACKS_ENABLED", "KEEP_REMOTE_FILES"):
        monkeypatch.setenv(f"ANSIBLE_{name}", "no_such_thing" if "CALLBACK" in name else "4")
    (folder / "theirs").mkdir()
    (folder / "theirs" / "their_own.py").write_text("raise SystemExit('a callback plugin of the person')")
    monkeypatch.setenv("ANSIBLE_CALLBACK_PLUGINS", str(folder / "theirs"))
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    monkeypatch.setenv("FORCE_COLOR", "1")
    for name in ("AD_HOC_COMMAND_ID", "JOB_ID", "ORIGINAL_STDOUT_CALLBACK", "PROJECT_UPDATE_ID", "AWX_LIB_DIRECTORY"):
        monkeypatch.setenv(name, "somebody's own")
    for name, value in {
        "RUNNER_OMIT_EVENTS": "true",
        "RUNNER_ONLY_FAILED_EVENTS": "true",
        "MAX_EVENT_RES": "1",
    }.items():
        monkeypatch.setenv(name, value)
    tasks = [
        {"name": "Look", "command": "true", "changed_when": False},
        {"name": "Write", "copy": {"dest": str(folder / "file"), "content": "{{ given }}\n"}},
        {"name": "Never", "command": "true", "when": False},
        {"name": "Wait", "shell": 'test -e x || { touch x; echo \'{"note": "1 of 2"}\'; false; }', "register": "y"},
        {"name": "Know", "set_fact": {"found": [1, "é\U0001f600"], "long": "{{ 'x' * 10 ** 6 }}"}},
    ]
    tasks[3] |= {"until": "y.rc == 0", "retries": 2, "delay": 0, "args": {"chdir": str(folder)}}
    steps, done = run(folder, monkeypatch, *tasks, variables={"given": "{{ 6 * 7 }}"})
    ended = [(step.task, step.outcome) for step in steps if step.outcome != "started"]
    assert ended[:3] == [("Look", "ok"), ("Write", "changed"), ("Never", "skipped")]
    assert ended[3:] == [("Wait", "waiting"), ("Wait", "changed"), ("Know", "ok")]
    assert "+{{ 6 * 7 }}" in next(step.diff for step in steps if step.outcome == "changed")
    assert next(step.note for step in steps if step.outcome == "waiting") == "1 of 2"
    assert steps[-1].facts["found"] == [1, "é\U0001f600"]
    assert len(steps[-1].facts["long"]) == 10**6
    assert done.changed == (": Write", ": Wait")
    said = done.log.read_bytes()
    assert b"\nPLAY RECAP" in said
    assert not {b"\r", b"\x1b"} & {said[at : at + 1] for at in range(len(said))}


def test_our_own_error_during_an_event_ends_the_run(folder, monkeypatch):
    def on_step(step):
        if step.task == "Sleep":
            while not sleepers():
                time.sleep(0.1)
            raise BrokenPipeError

    monkeypatch.setattr(content, "playbook", lambda _: play(folder, {"name": "Sleep", "command": SLEEPER}))
    with connection.opened(HERE) as opened, pytest.raises(BrokenPipeError):
        runner.run("up", [folder / "box.yml"], opened, folder / "run.log", on_step=on_step)
    assert not sleepers()
    assert not processes("ansible-playbook", str(folder))
    assert not left(folder)


@pytest.mark.parametrize(
    ("task", "kind", "says"),
    [
        ({"name": "Say", "fail": {"msg": "[port-taken] it is"}}, DeploymentFailed, "^Say failed on box"),
        ({"name": "Break", "command": "false"}, DeploymentFailed, "^Break failed on box"),
        ({"nonsense": 1}, DeploymentFailed, "ended with exit code 4 before its first task"),
    ],
)
def test_failures_have_their_own_errors(folder, monkeypatch, task, kind, says):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("ANSIBLE_FORCE_COLOR", "1")
    with pytest.raises(kind, match=says):
        run(folder, monkeypatch, task)


MODULE = """
from ansible.module_utils.basic import AnsibleModule

AnsibleModule({}).fail_json(msg="it is full", refusal={"id": "disk-full", "message": "it is full"})
"""


@pytest.mark.parametrize(
    ("task", "code", "says"),
    [
        ({"refuse": {"id": "port-taken", "message": "{{ 6 * 7 }}"}}, 29, "^42$"),
        ({"refuse": {"id": "port-taken", "message": "{{ item }}"}, "loop": [1, 2], "when": "item == 2"}, 29, "^2$"),
        ({"full_disk": {}}, 34, "^it is full$"),
        (
            {"ask_host": {"argv": ["foreign", "x.service", "--listen", "192.0.2.7", "--port", 8000]}},
            39,
            "^box: vllm_host is '192.0.2.7'",
        ),
        (
            {"ask_host": {"argv": ["manifest", "/no/such"]}, "loop": [1]},
            25,
            "^box: model not found on this machine: /no/such",
        ),
    ],
    ids=["role", "loop of a role", "module", "host program", "loop of the host program"],
)
def test_a_refusal_reaches_the_cli_with_its_exit_code(folder, monkeypatch, task, code, says):
    (folder / "library").mkdir()
    (folder / "library" / "full_disk.py").write_text(MODULE)
    with pytest.raises(Refused, match=says) as refused:
        run(folder, monkeypatch, {"name": "Refuse", **task})
    assert exit_code_of(refused.value) == code


def test_a_killed_playbook_is_reported_with_its_task(folder, monkeypatch):
    def on_step(step):
        if (step.task, step.outcome) == ("Sleep", "started"):
            os.kill(min(processes("ansible-playbook", str(folder))), signal.SIGKILL)

    monkeypatch.setattr(content, "playbook", lambda _: play(folder, {"name": "Sleep", "command": "sleep 5"}))
    with (
        connection.opened(HERE) as opened,
        pytest.raises(
            DeploymentFailed, match=r"was ended by signal 9 in the task Sleep on box\. Re-run the command to continue"
        ),
    ):
        runner.run("up", [folder / "box.yml"], opened, folder / "run.log", on_step=on_step)


def started(folder):
    """`up -K` in a separate process, in the middle of a task."""
    play(folder, {"name": "Begin", "command": "true"}, {"name": "Sleep", "command": SLEEPER})
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "HF_TOKEN": TOKEN, "PYTHONPATH": str(content.root())},
        start_new_session=True,
    )
    process.stdin.write(f"{PASSWORD}\n")
    process.stdin.flush()
    while process.stdout.readline() not in ("Sleep\n", ""):
        pass
    while process.poll() is None and not sleepers():
        time.sleep(0.1)
    assert process.poll() is None, process.stderr.read()
    return process


def processes(*words):
    """The processes whose command line has all of `words`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if all(word in line for word in words):
            found.append(int(path.parent.name))
    return found


def sleepers():
    return processes(f"{SLEEPER} ")


def held(folder, *texts):
    """The files under `folder` that hold one of `texts`."""
    files = [path for top in (folder, folder / "runtime/") for path in top.resolve().rglob("*") if path.is_file()]
    return [path for path in files if any(text.encode() in path.read_bytes() for text in texts)]


def left(folder):
    return list((folder / "runtime/").resolve().glob("*/*"))


def test_no_disk_or_command_line_has_secrets_and_a_killed_runs_files_are_removed(folder):
    process = started(folder)
    try:
        assert not held(folder, PASSWORD, TOKEN, "XDG_STATE_HOME")  # nor anything else of the environment
        assert not processes(PASSWORD)
        assert not processes(TOKEN)
    finally:
        process.kill()
        process.wait()
        for number in sleepers():
            os.kill(number, signal.SIGKILL)
    assert not held(folder, PASSWORD, TOKEN)
    until = time.monotonic() + 60
    while processes("ansible-playbook", str(folder)):  # without a parent, it ends itself
        assert time.monotonic() < until
        time.sleep(0.1)
    assert left(folder)
    with scratch.folder() as ours:
        assert left(folder) == [ours]
    assert not left(folder)


def test_local_facts_have_no_token(folder, monkeypatch):
    """ansible-runner stores a task's result in a file until it has read it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    files = [path for path in (content.root() / "roles").rglob("tasks/*.yml") if "builtin.setup:" in path.read_text()]
    tasks = [task for path in files for task in yaml.safe_load(path.read_text()) if "ansible.builtin.setup" in task]
    steps, _ = run(folder, monkeypatch, *tasks)
    told = [step.facts for step in steps if step.facts]
    assert len(told) == len(tasks) > 0
    assert TOKEN not in str(told)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminated_run_leaves_nothing(folder, number):
    process = started(folder)
    process.send_signal(number)
    assert process.wait(30) == 128 + number
    assert not left(folder)
    assert not processes("ansible-playbook", str(folder))
    assert not sleepers()
    assert not held(folder, PASSWORD, TOKEN)


def test_the_sudo_password_is_used(folder, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    sudo = folder / "sudo"
    sudo.write_text(
        "#!/bin/bash\n"
        'while [ "$1" != -p ]; do shift; done; printf %s "$2" >&2; read -r -s given\n'
        f'[ "$given" = "{PASSWORD} é" ] || exit 1; while [ "$1" != /bin/sh ]; do shift; done; exec "$@"\n'
    )
    sudo.chmod(0o755)
    task = {"name": "Become", "command": "true", "become": True, "vars": {"ansible_become_exe": str(sudo)}}
    steps, _ = run(folder, monkeypatch, task, password=f"{PASSWORD} é")
    assert steps[-1].outcome == "changed"
