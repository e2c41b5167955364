"""Words in, words and exit codes out: what needs no host."""

import pytest
from click.testing import CliRunner

from zorac_deploy.cli import cli


def run(*arguments):
    return CliRunner().invoke(cli, arguments)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["up"], 3, "no host named"),
        (["up", "--host", "me@box"], 3, "--host needs --profile"),
        (["up", "--host", "me@box", "--profile", "turbo"], 4, "no profile turbo"),
        (["up", "--profile", "headless"], 3, "--profile goes with --host"),
        (["up", "tower", "--host", "me@box", "--profile", "cpu"], 3, "leave out HOST"),
        (["status", "--inventory", "/no/such.yml"], 3, "there is no inventory"),
        (["up", "--nonsense"], 2, "No such option"),
        (["switch"], 2, "Missing argument 'PROFILE'"),
        (["switch", "display"], 3, "no host named"),
        (["switch", "tower", "display", "again"], 2, "unexpected extra argument"),
        (["switch", "display", "--host", "me@box"], 3, "--host needs --profile"),
        (["rollback", "tower", "four"], 2, "'four' is no generation"),
        (["rollback", "tower", "-1"], 2, "No such option"),
        (["rollback", "4"], 3, "no host named"),  # a number is a generation, not a host
        (["rollback"], 3, "no host named"),
        (["generations", "--keep", "0"], 2, "Invalid value for '--keep'"),
        (["up", "--model", "s3://bucket/model", "--host", "me@box", "--profile", "cpu"], 39, "not fetched by s3"),
        (["up", "--model", "", "--host", "me@box", "--profile", "cpu"], 25, "no model was named"),
        (["up", "--model", "hf://nobody", "--host", "me@box", "--profile", "cpu"], 39, "names no model"),
        (["model", "remove"], 2, "Missing argument 'NAME'"),
        (["model", "pull", "hf://org/name"], 3, "no host named"),
        (["sandbox", "shell", "nowhere"], 50, "no sandbox named nowhere"),
    ],
)
def test_bad_words_have_a_message_and_a_code_and_no_traceback(arguments, code, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ZORAC_DEPLOY_INVENTORY", raising=False)
    outcome = run(*arguments)
    assert outcome.exit_code == code, outcome.output
    assert says in outcome.output.replace("\n", " ")
    assert "Traceback" not in outcome.output


def test_an_unreachable_host(tmp_path):
    source = tmp_path / "inventory.yml"
    source.write_text("cpu:\n  hosts:\n    gone: {ansible_host: 127.0.0.1, ansible_port: 9}\n")
    outcome = run("up", "--inventory", str(source))
    assert outcome.exit_code == 10
    assert "gone (127.0.0.1) does not answer" in outcome.output.replace("\n", " ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_the_shell(shell):
    outcome = run("completion", shell)
    assert outcome.exit_code == 0
    assert "_ZORAC_DEPLOY_COMPLETE" in outcome.output


def test_every_command_has_an_example_in_its_help():
    for name, command in cli.commands.items():
        assert "Example" in command.help, name
