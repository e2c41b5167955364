"""zorac_deploy/cli/progress.py and the events of zorac_deploy/runner.py that it shows."""

import io
import json

import pytest

from zorac_deploy import runner
from zorac_deploy.cli.progress import Progress
from zorac_deploy.cli.terminal import Terminal

_TASK = {"role": "model_weights", "task": "Wait until the model is there"}


def shown(steps, terminal=False):
    written = io.StringIO()
    progress = Progress(Terminal(file=written, force_terminal=terminal, width=200))
    for step in steps:
        progress.step(step)
    return progress, written.getvalue()


def waiting(note):
    return runner.Step(*_TASK.values(), "waiting", note=note)


def test_without_a_terminal_progress_is_an_occasional_line():
    _, written = shown([waiting("1 of 9 GiB"), waiting("2 of 9 GiB"), waiting("")])
    assert "waiting 1 of 9 GiB" in written
    assert "2 of 9 GiB" not in written


def test_on_a_terminal_the_line_shows_the_newest_progress():
    progress, written = shown([waiting("1 of 9 GiB"), waiting("2 of 9 GiB")], terminal=True)
    assert written == ""
    assert "2 of 9 GiB" in progress.__rich__().plain
    progress.step(runner.Step("model_weights", "Require that it came", "started"))
    assert "GiB" not in progress.__rich__().plain


@pytest.mark.parametrize(
    ("stdout", "note"),
    [(json.dumps({"state": "fetching", "note": "1 of 9 GiB"}), "1 of 9 GiB"), ("", ""), ("[]", ""), ("no JSON", "")],
)
def test_a_polled_programs_progress_is_shown(stdout, note):
    steps = []
    runner._Events(steps.append).take({"event": "runner_retry", "event_data": {**_TASK, "res": {"stdout": stdout}}})
    assert steps == [waiting(note)]
