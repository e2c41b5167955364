"""zorac_deploy/cli/status.py: what a host serves, and how its engine uses memory."""

import io
import json

import pytest
from click.testing import CliRunner

from tests.unit.test_deployment import STATUS, FakeConnection
from zorac_deploy import deployment, host_program
from zorac_deploy.cli import cli, status
from zorac_deploy.cli.terminal import Terminal

PREDICTED = {"weights_gib": 13.31, "overhead_gib": 0.25, "kv_gib": 6.0, "kv_tokens": 78643, "verdict": "fits"}
LOGGED = {
    "weights_gib": 13.58,
    "graphs_gib": 0.13,
    "non_torch_gib": 0.22,
    "kv_tokens": 80240,
    "max_concurrency": 2.45,
    "kernels": ["MarlinLinearKernel", "CutlassFP8ScaledMMLinearKernel"],
    "attention_backend": "TRITON_ATTN",
}


@pytest.fixture
def shown(monkeypatch):
    """The output for a plan and an engine's log, line by line."""

    def show(plan, logged):
        one, two = STATUS["generations"]
        told = {**STATUS, "generations": [one, {**two, "plan": plan, "outcome": {**two["outcome"], "engine": logged}}]}
        text = io.StringIO()
        monkeypatch.setattr(status, "output", Terminal(file=text))
        status._show(deployment.read(FakeConnection(told)))
        return [" ".join(line.split()) for line in text.getvalue().splitlines()]

    return show


def test_logged_and_predicted_values_are_shown_side_by_side(shown):
    lines = shown({"predicted": PREDICTED}, LOGGED)
    assert lines[lines.index("memory planned logged") :] == [
        "memory planned logged",
        "weights 13.31 GiB 13.58 GiB",
        "CUDA graphs 0.13 GiB",
        "outside PyTorch 0.25 GiB 0.22 GiB",
        "KV cache 6.00 GiB",
        "KV tokens 78,643 80,240",
        "full contexts 2.45",
    ]
    assert "kernel MarlinLinearKernel, CutlassFP8ScaledMMLinearKernel" in lines
    assert "attention TRITON_ATTN" in lines


def test_without_a_prediction_only_logged_values_are_shown(shown):
    lines = shown({"max_num_seqs": 4}, {"kv_gib": 1.0, "kv_tokens": 46592})
    assert lines[lines.index("memory logged") :] == ["memory logged", "KV cache 1.00 GiB", "KV tokens 46,592"]


@pytest.mark.parametrize("plan", [{}, {"predicted": None}, {"predicted": {"verdict": "unknown", "weights_gib": None}}])
def test_without_either_nothing_is_shown(shown, plan):
    assert shown(plan, {})[-1].startswith("at boot")


def test_a_host_is_called_once(monkeypatch, tmp_path):
    asked = []

    def run(_, *words, root=True):
        asked.append((words, root))
        return FakeConnection(STATUS).run(*words)

    monkeypatch.setattr("zorac_deploy.connection.Connection.run", run)
    source = tmp_path / "inventory.yml"
    source.write_text("cpu:\n  hosts:\n    tower: {ansible_connection: local}\n")
    outcome = CliRunner().invoke(cli, ["status", "--json", "--inventory", str(source)])
    assert json.loads(outcome.output)["host"] == "tower"
    assert asked == [((host_program.PATH, "status"), True)]
