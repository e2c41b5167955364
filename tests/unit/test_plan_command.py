"""`zorac-deploy plan`: its output for the roles' facts."""

import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from zorac_deploy import runner
from zorac_deploy.cli import cli, deploying
from zorac_deploy.cli import plan as command
from zorac_deploy.cli.progress import Progress
from zorac_deploy.cli.terminal import Terminal
from zorac_deploy.errors import Refused

PLAN = {
    "gpu_total_gib": 23.52,
    "max_model_len": 32768,
    "verdict": "fits",
    "reason": "a request of 32768 tokens needs 2.50 GiB of KV cache, and 5.19 GiB are expected.",
    "assumed": {},
    "weights_gib": 13.27,
    "activation_gib": 1.29,
    "graphs_gib": 0.14,
    "overhead_gib": 0.25,
    "kv_gib": 5.19,
    "kv_low_gib": 4.38,
    "kv_high_gib": 6.41,
    "kv_tokens": 67968,
    "kv_bytes_per_token": 81920.0,
    "max_concurrency": 2.07,
    "largest_max_model_len": 32768,
    "notes": [],
    "card": {"name": "NVIDIA GeForce RTX 4090", "compute": "8.9", "count": 1},
}
FACTS = {
    "memory_plan_result": PLAN,
    "model_weights_family": {"notes": ["the model has no [chat] template"]},
    "gpu_compatibility_result": {"selected": [{"uuid": "GPU-1"}]},
    "nvidia_facts_found": {
        "holders": [
            {"gpu": "GPU-1", "pid": 77, "name": "Xorg", "unit": "gdm.service", "used_mib": 301},
            {"gpu": "GPU-1", "pid": 78, "name": "blender", "unit": None, "used_mib": 2048},
            {"gpu": "GPU-2", "pid": 79, "name": "trainer", "unit": None, "used_mib": 9000},
        ]
    },
}


@pytest.fixture
def run(monkeypatch):
    """The command, with the facts, changes or refusals of the roles."""

    def ran(*words, facts=FACTS, tasks=(), refusal=None):
        @contextlib.contextmanager
        def session(*_):
            yield SimpleNamespace(name="tower")

        def changes(*seen):
            seen[-1].update(facts)
            if refusal:
                raise Refused("it does not fit", refusal)
            return deploying.Changes(tuple(tasks), ("-old\n+new",), Path("run.log"))

        text = io.StringIO()
        console = Terminal(file=text, width=200)
        monkeypatch.setattr(command, "session", session)
        monkeypatch.setattr(deploying, "would_change", changes)
        for module in (command, deploying):
            monkeypatch.setattr(module, "output", console)
        done = CliRunner().invoke(cli, ["plan", *words])
        return done, text.getvalue()

    return ran


def test_plan_shows_the_memory_the_processes_and_the_changes(run):
    done, text = run(tasks=["vllm_service: Ensure the API key exists"])
    assert done.exit_code == 0
    for words in (
        "NVIDIA GeForce RTX 4090",
        "fits: a request of 32768 tokens",
        "in use: 2048 MiB by blender\n  in use: 301 MiB by Xorg (gdm.service)",
        "up would\n  vllm_service: Ensure the API key exists",
        "note: the model has no [chat] template",
    ):
        assert words in text
    assert text.index("tower: 1 task would change something.") < text.index("NVIDIA GeForce")
    assert "+new" not in text
    assert "trainer" not in text  # it sits on another card


def test_many_tasks_are_counted_by_role_and_named_with_verbose(run):
    tasks = [*(f"engine: Ensure part {number}" for number in range(11)), "generations: Ensure it is there"]
    _, text = run(tasks=tasks)
    assert "up would\n  engine: 11 tasks\n  generations: 1 task\n" in text
    assert "Ensure part" not in text
    _, text = run("-v", tasks=tasks)
    assert all(f"  {task}\n" in text for task in tasks)
    assert "-old\n+new" in text


def test_a_task_that_would_change_something_has_not_changed_it(monkeypatch):
    steps = [runner.Step("engine", "Ensure uv is installed", outcome) for outcome in ("changed", "ok")]

    def run(*_, on_step, **__):
        for step in steps:
            on_step(step)
        return runner.Result(("engine: Ensure uv is installed",), 1.0, Path("run.log"))

    monkeypatch.setattr(deploying.runner, "run", run)
    monkeypatch.setattr(deploying, "log_file", lambda *_: Path("run.log"))
    opened = SimpleNamespace(inventory=SimpleNamespace(sources=()), connection=None)
    for verbose in (False, True):
        text = io.StringIO()
        deploying.changes(opened, Progress(Terminal(file=text), verbose))
        assert "changed" not in text.getvalue()
        assert ("planned engine: Ensure uv is installed" in text.getvalue()) is verbose


def test_a_plan_that_does_not_fit_is_shown_before_the_refusal(run):
    done, text = run(facts={"memory_plan_result": {**PLAN, "verdict": "refused"}}, refusal="model-does-not-fit")
    assert done.exit_code == 38
    assert "refused: " in text


def test_a_gpu_without_a_driver_has_no_plan(run):
    done, text = run(facts={})
    assert done.exit_code == 0
    assert "unknown until a driver works" in text


def test_plan_as_json(run):
    done, text = run("--json")
    told = json.loads(done.stdout)
    assert (told["host"], told["plan"]["kv_tokens"], told["would_change"]) == ("tower", 67968, [])
    assert [holder["name"] for holder in told["holders"]] == ["blender", "Xorg"]
    assert text == ""


@pytest.mark.parametrize(
    ("context", "said"), [("max", {"vllm_max_model_len": "auto"}), ("16384", {"vllm_max_model_len": 16384})]
)
def test_a_context_on_the_command_line_overrides_the_inventory(run, monkeypatch, context, said):
    seen = []
    monkeypatch.setattr(deploying, "variables", lambda _model, context, _replace_unit: seen.append(context) or {})
    run("--context", context)
    monkeypatch.undo()
    assert deploying.variables(None, seen[0]) == said
