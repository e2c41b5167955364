"""zorac_deploy/cli/terminal.py: any text from elsewhere is printed as text."""

import ast
import io
import json
import unicodedata

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as some
from rich.table import Table

from zorac_deploy import chat, connection, content, errors
from zorac_deploy.cli import chat as chatting
from zorac_deploy.cli import cli, common, deploying
from zorac_deploy.cli.progress import Progress
from zorac_deploy.cli.terminal import Stream, Terminal, clean, marked
from zorac_deploy.inventory import Target

CLI = content.root() / "zorac_deploy" / "cli"
HARM = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\x08\x00\u202e\u2066\u2028\udc80"
MARKUP = "a[i:x:k] 12:100:20 [bold red]x[/] [link=https://x]y[/link] :smile: \\[b] \\"


def harmful(text):
    """The control characters of `text`."""
    controls = {letter for letter in text if unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp")}
    turns = {letter for letter in text if "\u202a" <= letter <= "\u202e" or "\u2066" <= letter <= "\u2069"}
    return (controls | turns) - {"\n", "\t"}


def written(show, **options):
    """What `show` writes to a console."""
    file = io.StringIO()
    show(Terminal(file=file, **{"width": 300, **options}))
    return file.getvalue()


def table(text):
    made = Table(box=None)
    made.add_column("name")
    made.add_row(text)
    return made


@given(some.text())
def test_no_text_has_a_control_character_left(text):
    assert not harmful(clean(text))
    assert clean(clean(text)) == clean(text)


@pytest.mark.parametrize(
    "show",
    [
        lambda console: console.print(HARM + MARKUP),
        lambda console: console.print(HARM + MARKUP, end="", soft_wrap=True),
        lambda console: console.print(marked("{:>4}", HARM + MARKUP)),
        lambda console: console.print(table(HARM + MARKUP)),
        lambda console: Progress(console, verbose=True)._line("ok", HARM + MARKUP),
    ],
)
def test_foreign_text_is_neither_interpreted_nor_rendered(show):
    text = written(show)
    assert not harmful(text)
    assert MARKUP in " ".join(text.split())  # a table wraps


def test_a_status_line_is_neither_interpreted_nor_rendered(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)

    def show(console):
        with console.status(marked("Ask for {}", HARM + MARKUP)):
            pass

    text = written(show, force_terminal=True)
    assert "\x1b]" not in text
    assert MARKUP in text


def test_our_own_markup_has_its_colours_and_widths():
    text = written(lambda console: console.print(marked("[bold]{:<6}[/]{:.1f}|", "a[b]", 2.34)), force_terminal=True)
    assert text == "\x1b[1ma[b]  \x1b[0m2.3|\n"


SENTENCE = "The quick brown fox jumps over the lazy dog, " * 5


@pytest.mark.parametrize(
    "show",
    [
        lambda console: console.print(SENTENCE),
        lambda console: console.print(marked("[bold]error:[/] {}", SENTENCE)),
        lambda console: Progress(console).say("changed", SENTENCE),
    ],
)
def test_a_line_is_broken_between_words_on_a_terminal_and_not_at_all_in_a_pipe(show):
    for terminal in (True, False):
        file = io.StringIO()
        show(Terminal(file=file, force_terminal=terminal, color_system=None, _environ={"COLUMNS": "40"}))
        lines = file.getvalue().rstrip("\n").split("\n")
        assert " ".join(line.strip() for line in lines).endswith(SENTENCE.strip())
        assert max(map(len, lines)) <= 40 if terminal else len(lines) == 1


def test_what_follows_a_name_stays_in_its_column():
    text = written(lambda console: console.print_row(marked("  {:<5} ", "model"), "one two three four five"), width=30)
    assert text == "  model one two three four\n        five\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("The quick brown fox jumps.", "The quick\nbrown fox\njumps.\n"),
        ("one\n\n  two  three four", "one\n\n  two\nthree four\n"),
        ("a" * 25 + " b", "a" * 25 + "\nb\n"),
        ("\u4f60" * 7, "\u4f60" * 5 + "\n" + "\u4f60" * 2 + "\n"),
        ("", "\n"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 7, 99])
def test_a_stream_is_broken_between_words_however_it_arrives(text, shown, size):
    file = io.StringIO()
    stream = Stream(Terminal(file=file, force_terminal=True, color_system=None, width=10))
    for at in range(0, len(text), size):
        stream.write(text[at : at + size])
    stream.end()
    assert file.getvalue() == shown


def test_a_stream_into_a_pipe_is_what_arrived():
    file = io.StringIO()
    stream = Stream(Terminal(file=file))
    for piece in ("two ", "  words\n", "x" * 200):
        stream.write(piece)
    assert file.getvalue() == "two   words\n" + "x" * 200


def test_a_chat_shows_what_the_model_wrote(monkeypatch, capsys):
    class FakeReply:
        measures, cut = None, False

        def __init__(self, *_):
            pass

        def __iter__(self):
            return iter([HARM, *MARKUP])

    monkeypatch.setattr(chatting.talk, "Reply", FakeReply)
    assert (
        chatting._stream_reply(chat.Endpoint("http://x", "m", "k"), [], 9) == HARM + MARKUP
    )  # the model gets it unchanged
    shown = capsys.readouterr().out
    assert not harmful(shown)
    assert MARKUP in shown


def test_an_error_that_quotes_an_endpoint_is_harmless(monkeypatch):
    def session(*_):
        raise errors.EndpointFailed(HARM + MARKUP)

    monkeypatch.setattr(common.inventory, "read", session)
    outcome = CliRunner().invoke(cli, ["status", "--host", "me@box", "--profile", "cpu"])
    assert outcome.exit_code == 43
    assert not harmful(outcome.stderr)
    assert MARKUP in outcome.stderr.replace("\n", "")


def test_the_journal_is_harmless_line_by_line(tmp_path):
    lines = []
    here = connection.Connection(Target("here", "cpu", "localhost", local=True), None, tmp_path)
    assert here.follow("sh", "-c", "printf 'a\\033[2J\\nb\\377\\n'; echo c >&2; exit 7", on_line=lines.append) == 7
    assert [clean(line) for line in lines] == ["a[2J", "b\ufffd", "c"]


def test_json_stays_json(capsys):
    common.print_result({"found": HARM + MARKUP})
    shown = capsys.readouterr().out
    assert not harmful(shown)
    assert json.loads(shown) == {"schema": 1, "found": HARM + MARKUP}


@pytest.mark.parametrize(("passed", "outcome"), [(True, "ok"), (False, "failed")])
def test_a_failed_smoke_check_is_not_shown_as_ok(passed, outcome):
    step = deploying._checked(chat.Check("models", passed, "?"))
    assert outcome in written(lambda console: Progress(console, verbose=True).step(step))


def calls(tree, *names):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (getattr(node.func, "id", "") or getattr(node.func, "attr", "")) in names:
            yield node


@pytest.mark.parametrize("path", sorted(CLI.glob("*.py")), ids=lambda path: path.name)
def test_there_is_one_way_to_the_terminal(path):
    tree = ast.parse(path.read_text())
    if path.name != "terminal.py":
        assert not list(calls(tree, "from_markup", "render_markup", "Console", "escape"))
    for call in calls(tree, "marked"):
        assert not [node for node in ast.walk(call.args[0]) if isinstance(node, ast.JoinedStr)], ast.unparse(call)
    for call in calls(tree, "status"):
        assert not call.args or not isinstance(call.args[0], ast.JoinedStr), ast.unparse(call)
    for call in calls(tree, "confirm", "prompt"):
        if isinstance(call.args[0], ast.JoinedStr):
            pytest.fail(f"{ast.unparse(call)} is not cleaned")
