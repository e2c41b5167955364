"""The command line as far as it needs no host: arguments, output and exit codes."""

import ast
import json
import os
import re
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from zorac_deploy import content, inventory
from zorac_deploy.cli import cli, common
from zorac_deploy.errors import SmokeFailed


def run(*arguments):
    return CliRunner().invoke(cli, arguments)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["up"], 3, "no host named"),
        (["up", "--host", "me@box"], 3, "--host needs --profile"),
        (["up", "--host", "me@box", "--profile", "turbo"], 4, "unknown profile turbo"),
        (["up", "--profile", "headless"], 3, "--profile works only with --host"),
        (["up", "tower", "--host", "me@box", "--profile", "cpu"], 3, "Remove HOST"),
        (["status", "--inventory", "/no/such.yml"], 3, "inventory not found"),
        (["up", "tower", "rack", "--host", "me@box", "--profile", "cpu"], 3, "Remove HOST"),
        (["up", "tower", "rack", "--check"], 2, "--check takes one HOST"),
        (["up", "--nonsense"], 2, "No such option"),
        (["switch"], 2, "Missing argument 'PROFILE'"),
        (["switch", "display"], 3, "no host named"),
        (["switch", "tower", "display", "again"], 2, "unexpected extra argument"),
        (["switch", "display", "--host", "me@box"], 3, "--host needs --profile"),
        (["rollback", "tower", "four"], 2, "'four' is not a generation number"),
        (["rollback", "tower", "-1"], 2, "No such option"),
        (["rollback", "tower", "7" * 5000], 2, "is not a generation number"),
        (["rollback", "tower", "\u0664"], 2, "is not a generation number"),  # a digit, but none of ours
        (["rollback", "4"], 3, "no host named"),  # a number is a generation, not a host
        (["rollback"], 3, "no host named"),
        (["generations", "--keep", "0"], 2, "Invalid value for '--keep'"),
        (["up", "--model", "s3://bucket/model", "--host", "me@box", "--profile", "cpu"], 39, "unsupported scheme s3"),
        (["up", "--model", "", "--host", "me@box", "--profile", "cpu"], 25, "no model named"),
        (["up", "--model", "hf://nobody", "--host", "me@box", "--profile", "cpu"], 39, "is not a model"),
        (["model", "remove"], 2, "Missing argument 'NAME'"),
        (["model", "pull", "hf://org/name"], 3, "no host named"),
        (["sandbox", "shell", "nowhere"], 50, "no sandbox named nowhere"),
    ],
)
def test_invalid_arguments_give_a_message_and_a_code_but_no_traceback(arguments, code, says, tmp_path, monkeypatch):
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
def test_completion_prints_a_script_for_the_shell(shell):
    outcome = run("completion", shell)
    assert outcome.exit_code == 0
    assert "_ZORAC_DEPLOY_COMPLETE" in outcome.output


def commands():
    """Every top-level command by its name, as listed and as imported."""
    with click.Context(cli) as context:
        return {
            name: (cli.get_command(context, name), cli.resolve_command(context, [name])[1])
            for name in cli.list_commands(context)
        }


@pytest.mark.parametrize(
    ("words", "code", "refusal", "says"),
    [
        (["status", "--json"], 3, None, "no host named"),
        (["status", "tower", "--json", "--inventory", "/no/such.yml"], 3, None, "inventory not found"),
        (
            ["up", "--host", "me@box", "--profile", "cpu", "--model", "ftp://x/y", "--json"],
            39,
            "settings-invalid",
            "ftp",
        ),
        (["fit", "/no/such/model", "--gpu-total-gib", "24", "--json"], 25, "model-missing", "/no/such/model"),
        (["model", "list", "--json"], 3, None, "no host named"),
    ],
)
def test_an_error_under_json_is_json(words, code, refusal, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    done = CliRunner().invoke(cli, words)
    told = json.loads(done.stdout)
    assert (done.exit_code, told["schema"], told["error"]["exit_code"], told["error"]["id"]) == (code, 1, code, refusal)
    assert says in told["error"]["message"]
    assert done.stderr.startswith("error")
    plain = CliRunner().invoke(cli, [word for word in words if word != "--json"])
    assert (plain.exit_code, plain.stdout) == (code, "")


def test_an_interruption_under_json_is_json(monkeypatch):
    monkeypatch.setattr(inventory, "read", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    done = CliRunner().invoke(cli, ["status", "--json", "--host", "me@box", "--profile", "cpu"])
    assert (done.exit_code, json.loads(done.stdout)["error"]["exit_code"]) == (130, 130)


def test_a_command_whose_outcome_is_a_failure_prints_one_document(monkeypatch):
    @click.command()
    @common.json_option()
    def failing(as_json):
        assert as_json
        common.print_result({"passed": False})
        raise SmokeFailed("one check failed", ["health"])

    monkeypatch.setitem(cli.commands, "failing", failing)
    done = CliRunner().invoke(cli, ["failing", "--json"])
    assert (done.exit_code, json.loads(done.stdout)) == (41, {"schema": 1, "passed": False})
    assert "one check failed" in done.stderr


def test_every_command_has_an_example_in_its_help():
    for name, (_, command) in commands().items():
        assert "Example" in command.help, name


def test_a_command_is_listed_without_its_module_by_its_name_and_in_one_short_line():
    for name, (listed, command) in commands().items():
        assert command.name == name
        assert not command.hidden
        assert listed.get_short_help_str(45) == (listed.short_help or command.get_short_help_str(45)), name
        assert not listed.get_short_help_str(45).endswith("..."), name


HEAVY = {
    "ansible",
    "ansible_runner",
    "httpx2",
    "huggingface_hub",
    "jinja2",
    "prompt_toolkit",
    "pydantic",
    "rich",
    "yaml",
}
SEEN = """
import atexit, sys
atexit.register(lambda: print(sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr))
sys.argv[0] = "zorac-deploy"
from zorac_deploy.cli import main
main()
"""


def started(*arguments, complete=None):
    """A separate process: its output, and the packages that it imported."""
    environment = {**os.environ, "PYTHONPATH": str(content.root())}
    if complete is not None:
        words = ["zorac-deploy", *complete]
        environment |= {
            "_ZORAC_DEPLOY_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(words),
            "COMP_CWORD": str(len(words) - 1),
        }
    command = [sys.executable, "-c", SEEN, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout, set(ast.literal_eval(done.stderr))


@pytest.mark.parametrize(
    ("arguments", "complete"),
    [(["--help"], None), (["--version"], None), (["completion", "bash"], None), ([], ["st"]), ([], ["--"])],
)
def test_help_and_completion_import_no_slow_package(arguments, complete):
    said, imported = started(*arguments, complete=complete)
    assert said
    assert not imported & HEAVY


@pytest.mark.parametrize("name", [*sorted(commands()), "model find", "bundle create", "sandbox up"])
def test_completion_knows_every_option(name):
    command, context = cli, click.Context(cli)
    for word in name.split():
        command = command.resolve_command(context, [word])[1]
        context = click.Context(command, info_name=word, parent=context)
    said, imported = started(complete=[*name.split(), "--"])
    options = {each for param in command.get_params(context) if isinstance(param, click.Option) for each in param.opts}
    options |= {each for param in command.get_params(context) for each in param.secondary_opts}
    assert {line.partition(",")[2] for line in said.split()} == {each for each in options if each.startswith("--")}
    if name.split()[0] not in ("bundle", "quantize"):  # their options name systems and recipes
        assert imported & HEAVY <= {"rich"}


@pytest.fixture(scope="module")
def inventories(tmp_path_factory):
    """A directory with inventories, whose cache the tests share."""
    folder = tmp_path_factory.mktemp("inventories")
    (folder / "inventory.yml").write_text(
        "gpu_servers: {children: {night: }}\nnight: {}\nheadless: {hosts: {tower: }}\ndisplay: {hosts: {attic: }}\n"
    )
    (folder / "other.yml").write_text("cpu: {hosts: {rack: }}\n")
    return folder


@pytest.mark.parametrize(
    ("complete", "offered"),
    [
        (["status", ""], ["attic", "tower"]),
        (["up", "tower", ""], ["attic"]),
        (["switch", "tower", "n"], ["night"]),
        (["switch", "d"], ["display"]),
        (["status", "--inventory", "other.yml", ""], ["rack"]),
        (["status", "--inventory", "none.yml", ""], []),
        (["status", "--host", "me@box", "--profile", "h"], ["headless"]),
        (["quantize", "m", "--recipe", "fp8-"], ["fp8-dynamic"]),
    ],
)
def test_completion_knows_hosts_profiles_and_recipes(complete, offered, inventories, monkeypatch):
    monkeypatch.chdir(inventories)
    monkeypatch.setenv("XDG_CACHE_HOME", str(inventories / "cache"))
    said, _ = started(complete=complete)
    assert [line.partition(",")[2] for line in said.split()] == offered


@pytest.mark.parametrize("name", sorted(set(re.findall("ZORAC_DEPLOY_[A-Z_]+", cli.help))))
def test_the_environment_variables_that_the_help_names_are_read(name, monkeypatch):
    monkeypatch.setenv(name, value := {"ZORAC_DEPLOY_INVENTORY": "/no/such.yml"}.get(name, "seven"))
    done = run("chat")
    assert done.exit_code != 0
    assert value in done.output


def test_the_help_lists_the_profiles():
    assert f"Profile for --host: {', '.join(inventory.shipped_profiles())}." in run("up", "--help").output
