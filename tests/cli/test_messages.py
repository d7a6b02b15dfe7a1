"""Messages from a pipe and from a terminal: lines that belong together, editing, and the history of typed lines."""

import io
import json
import signal
import stat
import sys

import pytest

from scratchlm.cli import terminal
from scratchlm.cli.messages import Message, MessageReader
from tests.processes import one_thread
from tests.terminals import typed_into

ECHO = """
from scratchlm.cli.messages import MessageReader
from scratchlm.cli.terminal import console
reader = MessageReader(console(stderr=True))
while (message := reader.read()) is not None:
    print("read", ascii(message.text), message.is_command, flush=True)
print("ended", flush=True)
"""
LEFT, UP = "\x1b[D", "\x1b[A"
PASTE = "\x1b[200~{}\x1b[201~"  # how a terminal marks pasted text: xterm's bracketed paste


@pytest.fixture
def from_pipe(monkeypatch, tmp_path):
    """The messages that a text in a pipe holds."""

    def read(text: str) -> list[Message]:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding="utf-8"))
        reader = MessageReader(terminal.console(stderr=True))
        return list(iter(reader.read, None))

    return read


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("one\n two \n\nthree\n", [("one", False), ("two", False)]),
        ("a\\\nb\\\n  c\nd", [("a\nb\n  c", False), ("d", False)]),
        ("the end\\", [("the end\\", False)]),
        ('"""\n/bin\n\n  x\\\n"""\nnext\n', [("/bin\n\n  x\\", False), ("next", False)]),
        ('"""\nnever closed\n', [("never closed", False)]),
        ('say """ now\n', [('say """ now', False)]),
        ("/system You are\\\nkind.\n/retry\n", [("/system You are\nkind.", True), ("/retry", True)]),
    ],
)
def test_lines_that_belong_together_are_one_message(from_pipe, text, messages):
    assert from_pipe(text) == messages


def test_piped_lines_leave_no_history(from_pipe, tmp_path):
    assert len(from_pipe("one\ntwo\n")) == 2
    assert not (tmp_path / "home").exists()


@pytest.fixture
def terminal_reader(tmp_path):
    """A reader in a terminal of its own, whose history is kept in this test's folder."""
    pytest.importorskip("readline", reason="this Python has no readline")
    if sys.platform == "win32":
        pytest.skip("Windows has no pseudo-terminals")
    return lambda: typed_into("-c", ECHO, here=tmp_path, env=one_thread(tmp_path / "home"))


def test_a_typed_line_is_edited_and_recalled_the_next_time(terminal_reader, tmp_path):
    with terminal_reader() as program:
        program.wait_for("you> ")
        program.type(f"helo{LEFT}l\r")
        program.wait_for("read 'hello' False")
        program.wait_for("you> ")
        program.type("\x04")  # Ctrl-D
        program.wait_for("ended")
    with terminal_reader() as program:
        program.wait_for("you> ")
        program.type(f"{UP} again\r")
        program.wait_for("read 'hello again' False")
    file = tmp_path / "home" / "chat_history.jsonl"
    assert [json.loads(line) for line in file.read_text().splitlines()] == ["hello", "hello again"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_pasted_text_of_several_lines_is_one_message_and_recalled_as_one(terminal_reader):
    with terminal_reader() as program:
        program.wait_for("you> ")
        program.type(PASTE.format("/a\n\n  b\n") + "\r")
        program.wait_for(r"read '/a\n\n  b' False")
    with terminal_reader() as program:
        program.wait_for("you> ")
        program.type(f"{UP}c\r")
        program.wait_for(r"read '/a\n\n  b\nc' False")


def test_continued_lines_have_a_prompt_of_their_own(terminal_reader):
    with terminal_reader() as program:
        program.wait_for("you> ")
        program.type('"""\r')
        program.wait_for("...> ")
        program.type('x\\\r"""\r')
        program.wait_for(r"read 'x\\' False")


def test_ctrl_c_drops_the_line_and_says_how_to_leave(terminal_reader):
    with terminal_reader() as program:
        program.wait_for("you> ")
        program.type("unwanted")
        program.wait_for("unwanted")
        for _ in range(20):  # Python's readline handles a signal that interrupts no waiting at the next one
            program.process.send_signal(signal.SIGINT)
            if program.read(2.0):
                break
        program.wait_for("An empty line or Ctrl-D ends the chat.")
        program.wait_for("you> ")
        program.type("two\r")
        program.wait_for("read 'two' False")


def test_a_history_that_cannot_be_kept_is_said_and_does_not_end_the_chat(terminal_reader, tmp_path):
    (tmp_path / "home").write_text("a file where the folder would be")
    with terminal_reader() as program:
        assert "chat_history.jsonl, the history of typed lines, could not be read" in program.wait_for(
            "you> "
        )
        program.type("one\r")
        program.wait_for("read 'one' False")


def test_a_long_history_is_shortened_to_its_end(terminal_reader, tmp_path):
    file = tmp_path / "home" / "chat_history.jsonl"
    file.parent.mkdir()
    file.write_text("".join(f'"line {i}"\n' for i in range(2500)) + '"cut off\n')
    with terminal_reader() as program:
        program.wait_for("you> ")
        program.type(f"{UP}\r")
        program.wait_for("read 'line 2499' False")
    lines = file.read_text().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ('"line 1500"', '"line 2499"', 1000)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
