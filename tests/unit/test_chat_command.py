"""`zorac-deploy chat`: its input, and its output of a reply."""

import threading
import time
import types

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from zorac_deploy.cli import chat as chatting
from zorac_deploy.cli.terminal import Terminal
from zorac_deploy.errors import EndpointFailed


@pytest.fixture
def model(monkeypatch):
    """A fake model: the requests, and its replies."""
    fake = types.SimpleNamespace(asked=[], cut=False)

    class FakeReply:
        measures = None

        def __init__(self, _, messages, __):
            fake.asked.append([message["content"] for message in messages])
            self.cut = fake.cut

        def __iter__(self):
            if fake.asked[-1][-1] == "fail":
                raise EndpointFailed("no answer")
            yield f"reply {len(fake.asked)}"

    monkeypatch.setattr(chatting.talk, "Reply", FakeReply)
    return fake


def read_and_type(terminal, pipe, keys):
    """Type `keys` once the prompt knows what was asked before, as it does when a person has read the reply."""
    deadline = time.monotonic() + 20
    while keys and time.monotonic() < deadline:
        if terminal.app and len(terminal.app.current_buffer._working_lines) == 3:
            pipe.send_text(keys)
            return
        time.sleep(0.02)


@pytest.fixture
def typed(model, monkeypatch):
    """Converse with the input of a terminal, and return the model's requests."""

    def converse(keys):
        monkeypatch.setattr(chatting, "output", Terminal(force_terminal=True))
        monkeypatch.setattr(chatting.sys, "stdin", types.SimpleNamespace(isatty=lambda: True))
        with create_pipe_input() as pipe, create_app_session(input=pipe, output=DummyOutput()) as terminal:
            first, _, later = (keys + "\x04").partition(PAUSE)
            pipe.send_text(first)
            person = threading.Thread(target=read_and_type, args=(terminal, pipe, later))
            person.start()
            chatting._converse(None, 9)
            person.join()
        return model.asked

    return converse


PAUSE, UP, PASTE = "(a person reads)", "\x1b[A", "\x1b[200~{}\x1b[201~"


@pytest.mark.parametrize(
    ("keys", "asked"),
    [
        ("hi\r", [["hi"]]),
        ("hi\rmore\r", [["hi"], ["hi", "reply 1", "more"]]),
        ("one\r/new\rtwo\r", [["one"], ["two"]]),
        ("one\r/new\r" + PAUSE + UP + UP + "\r", [["one"], ["one"]]),  # earlier questions
        ("ac\x1b[Db\r", [["abc"]]),  # the cursor goes left
        (PASTE.format("one\ntwo") + "\r", [["one\ntwo"]]),
        ("one\x1b\rtwo\r", [["one\ntwo"]]),  # Alt-Enter
        ("/help\r/nwe\r/\r", []),  # commands, known or not, are not for the model
        ("/etc/hosts, what is it?\r", [["/etc/hosts, what is it?"]]),
        ("fail\rhi\r", [["fail"], ["hi"]]),
        ("/quit\rhi\r", []),
    ],
)
def test_the_model_gets_the_typed_text(typed, keys, asked):
    assert typed(keys) == asked


def test_help_lists_the_commands_and_so_does_a_typo(typed, capsys):
    typed("/help\r/nwe\r")
    shown = capsys.readouterr().out
    assert shown.count("/new      Start a new conversation") == 2
    assert "Unknown command /nwe." in shown


def test_each_line_of_a_file_is_a_question(model, monkeypatch):
    lines = iter(["one", "two"])
    monkeypatch.setattr(chatting.output, "input", lambda _: next(lines, None) or chatting.sys.exit(0))
    with pytest.raises(SystemExit):
        chatting._converse(None, 9)
    assert model.asked == [["one"], ["one", "reply 1", "two"]]


@pytest.mark.parametrize("cut", [True, False])
def test_a_reply_that_was_cut_off_is_marked(model, capsys, cut):
    model.cut = cut
    assert chatting._stream_reply(None, [{"role": "user", "content": "hi"}], 9) == "reply 1"
    shown = capsys.readouterr()
    assert shown.out == "reply 1\n"
    assert ("cut off after 9 tokens" in shown.err) is cut
