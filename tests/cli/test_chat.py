"""The conversation: from a pipe, as JSON lines, and with a person at a terminal."""

import os
import pty
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cli.session import Session
from store.records import Consent
from tests.cli.helpers import Call, Result

REQUEST = "turn on the light in the kitchen"


def events(result: Result) -> list[str]:
    """Return the kinds of event, failures as their code."""
    return [line["data"]["event"] if line["ok"] else line["error"]["code"] for line in result.lines]


def test_a_piped_conversation_writes_answers_to_stdout(ready: Call) -> None:
    """A script reads one answer a line and nothing else."""
    result = ready("chat", stdin=f"{REQUEST}\n\n{REQUEST}\n")
    assert result.code == 0
    first, second = result.out.splitlines()
    assert first == second != ""
    assert ready("log", "list", "--json").data["count"] == 2


def test_every_event_is_one_json_line(ready: Call) -> None:
    """Answers carry the id by which they can be corrected later."""
    result = ready("chat", "--json", stdin=f"{REQUEST}\n/fix good\n/good\n/bad\n/new\n/help\n/quit\nnot read\n")
    assert result.code == 0
    assert events(result) == ["answer", "correction", "rating", "rating", "new", "help", "end"]
    answer, correction = (line["data"] for line in result.lines[:2])
    assert correction["interaction"] == answer["interaction"]
    assert ready("log", "show", answer["interaction"], "--json").data["corrected"] == "good"
    assert result.lines[-1]["data"] == {"event": "end", "answers": 1, "corrections": 1, "ratings": 2, "failed": 0}


def test_from_a_pipe_the_line_after_fix_is_the_correction(ready: Call) -> None:
    """/fix without a text takes the next line."""
    result = ready("chat", "--json", stdin=f"{REQUEST}\n/fix\nright one\n")
    identity = result.lines[0]["data"]["interaction"]
    assert ready("log", "show", identity, "--json").data["corrected"] == "right one"


def test_a_line_that_fails_does_not_end_the_conversation(ready: Call) -> None:
    """Exit 3: partly done; the rest went through."""
    result = ready("chat", "--json", stdin=f"/fix x\n/nope\n{REQUEST}\n/fix\n\n{REQUEST} {'x ' * 5000}\n{REQUEST}\n")
    assert result.code == 3
    assert events(result) == ["usage", "usage", "answer", "empty", "context_length", "answer", "end"]
    assert result.lines[-1]["data"]["failed"] == 4


def test_with_logging_withdrawn_nothing_is_kept(ready: Call, home: Path) -> None:
    """The answer comes, the store stays empty, and correcting it says why not."""
    with Session(place=home).store() as store:
        store.add(Consent(purpose="log", granted=False, time=time.time()))
    result = ready("chat", "--json", stdin=f"{REQUEST}\n/fix x\n")
    assert events(result)[0] == "answer"
    assert not result.lines[1]["ok"]
    assert ready("log", "list", "--json").data["count"] == 0


def test_turns_are_sent_along_when_the_settings_say_so(ready: Call, home: Path) -> None:
    """A recorded request holds the turns before it, with the system message first and corrections in place."""
    (home / "config.toml").write_text("[chat]\nturns = 2\n")
    result = ready("chat", "--system", "Be brief.", "--json", stdin=f"{REQUEST}\n/fix corrected\nand again\n")
    answers = [line["data"]["interaction"] for line in result.lines if line["data"]["event"] == "answer"]
    messages = ready("log", "show", answers[1], "--json").data["messages"]
    assert [message["content"] for message in messages] == ["Be brief.", REQUEST, "corrected", "and again"]


def test_learning_too_early_is_said_in_the_conversation(ready: Call) -> None:
    """/learn reports a `wait`; the conversation goes on."""
    result = ready("chat", "--json", stdin=f"{REQUEST}\n/fix x\n/learn\n")
    assert result.code == 0
    assert events(result) == ["answer", "correction", "learned", "end"]
    assert result.lines[2]["data"]["decision"] == "wait"


class Terminal:
    """A command with a terminal of its own."""

    def __init__(self, handle: int) -> None:
        self.handle, self.seen = handle, ""

    def expect(self, pattern: str, seconds: float = 60.0) -> str:
        """Read until `pattern` appears in what has come since the last match."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen, re.DOTALL)):
            ready, _, _ = select.select([self.handle], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"no {pattern!r} in {self.seen!r}"
            self.seen += os.read(self.handle, 4096).decode("utf-8", "replace")
        self.seen = self.seen[found.end() :]
        return found.group()

    def interrupt(self, pattern: str) -> str:
        """Press Ctrl-C, again every 10 s, until `pattern` appears; returns everything read.

        Python's own readline loses a signal that comes between the prompt and its wait for keys.
        """
        for _ in range(5):
            self.type("\x03")
            with suppress(AssertionError):
                return self.expect(f".*{pattern}", 10.0)
        return self.expect(f".*{pattern}", 10.0)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.handle, keys.encode())


@contextmanager
def terminal(home: Path, *words: str) -> Iterator[tuple[Terminal, int]]:
    """Run a command line on a pseudo-terminal; yields it and the process id."""
    process, handle = pty.fork()
    if process == 0:
        os.environ.update(CORRIGIBLE_HOME=str(home), TERM="dumb", INPUTRC="/dev/null")
        os.execv(sys.executable, [sys.executable, "-c", "from cli.main import main; main()", *words])
    try:
        yield Terminal(handle), process
    finally:
        os.close(handle)
        with suppress(ChildProcessError):  # the test has waited for it unless it failed: leave no zombie to others
            if os.waitpid(process, os.WNOHANG) == (0, 0):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_at_a_terminal_fix_opens_the_answer_for_editing(ready: Call, home: Path) -> None:
    """The last answer stands in the line; what the person makes of it is the correction."""
    with terminal(home, "chat") as (screen, process):
        screen.expect("> ")
        screen.type(f"{REQUEST}\n")
        answer = screen.expect(r"light[^\r\n]*\)").strip()
        screen.expect("> ")
        screen.type("/fix\n")
        screen.expect(r"fix> " + re.escape(answer))
        screen.type("; sound.play()\n")
        screen.expect("Kept")
        screen.expect("> ")
        screen.type("\x04")
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    (view,) = ready("log", "list", "--json").data["interactions"]
    assert view["corrected"] == f"{answer}; sound.play()"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_ctrl_c_ends_with_130_and_keeps_what_was_said(ready: Call, home: Path) -> None:
    """No traceback; the answer before is in the log."""
    with terminal(home, "chat") as (screen, process):
        screen.expect("> ")
        screen.type(f"{REQUEST}\n")
        screen.expect(r"light[^\r\n]*\)")
        screen.expect("> ")
        assert "Traceback" not in screen.interrupt("Interrupted")
        assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 130
    assert ready("log", "list", "--json").data["count"] == 1
