"""run and chat: what they print is what the model says."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import lamina
from lamina.cli.conversation import Conversation
from lamina.cli.options import SamplingOptions
from tests.cli.tiny import ENVIRONMENT, TEMPLATE, process, tiny_model

GREEDY = ("--temperature", 0, "--max-new-tokens", 9)


def _said(model: Any, text: str, special: bool, most: int = 9) -> str:
    """What a model continues a text with, by the loop of lamina.generate."""
    ids = model.tokenizer.encode(text, special=special)
    return "".join(token.text for token in lamina.generate(model, ids, max_new_tokens=most))


def _chat(*turns: str) -> str:
    """The rendered conversation before an answer: user and assistant in turn."""
    roles = ("user", "assistant")
    return "<s>" + "".join(f"{roles[i % 2]}: {turn}\n" for i, turn in enumerate(turns)) + "assistant: "


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny_model(TEMPLATE)


def test_run_answers_in_the_chat_template(run, chat_model: Path, model: Any) -> None:
    done = run("run", chat_model, "hello", *GREEDY)
    assert done.exit_code == 0
    assert done.stdout == _said(model, _chat("hello"), special=False) + "\n"
    assert len(done.stdout) == 10
    system = run("run", chat_model, "hello", "--system", "be brief", *GREEDY).stdout
    text = "<s>system: be brief\nuser: hello\nassistant: "
    assert system == _said(model, text, special=False) + "\n" != done.stdout


def test_run_continues_plain_text(run, chat_model: Path, base_model: Path, model: Any) -> None:
    expected = _said(model, "hello", special=True) + "\n"
    assert run("run", chat_model, "hello", "--no-chat", *GREEDY).stdout == expected
    assert run("run", base_model, "hello", *GREEDY).stdout == expected


def test_run_reads_stdin(run, chat_model: Path) -> None:
    given = run("run", chat_model, "two\nlines", *GREEDY).stdout
    assert run("run", chat_model, "-", *GREEDY, input="two\nlines\n").stdout == given
    assert run("run", chat_model, "-", input="").exit_code == 2


def test_run_samples_as_asked(run, chat_model: Path) -> None:
    def drawn(*options: object) -> str:
        return run("run", chat_model, "hi", "--max-new-tokens", 20, *options).stdout

    assert drawn("--temperature", 3, "--seed", 5) == drawn("--temperature", 3, "--seed", 5)
    assert drawn("--temperature", 3, "--seed", 5) != drawn("--temperature", 3, "--seed", 6)
    assert drawn("--temperature", 3, "--top-k", 1) == drawn()
    greedy = drawn()
    stop = greedy[5:7]
    assert drawn("--stop", stop, "--stop", "never") == greedy[: greedy.index(stop)] + "\n"


def test_run_keeps_within_the_context(run, base_model: Path, tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.mkdir()
    for file in base_model.iterdir():
        (short / file.name).write_bytes(file.read_bytes())
    config = json.loads((short / "config.json").read_text()) | {"max_position_embeddings": 12}
    (short / "config.json").write_text(json.dumps(config))
    assert len(run("run", short, "12345", "--max-new-tokens", 50).stdout) == 12 - 5 + 1


def test_stats_predict_what_is_held(run, chat_model: Path, model: Any) -> None:
    done = run("run", chat_model, "hello", "--stats", *GREEDY)
    said = dict(re.findall(r"^(weights|state) +predicted (.*) bytes, held [\d,]+ \(", done.stderr, re.M))
    held = dict(re.findall(r"^(weights|state) .* held ([\d,]+) \(", done.stderr, re.M))
    assert held == said
    weights = 4 * model.arch.parameters().total
    assert said["weights"] == f"{weights:,}"
    tokens = len(model.tokenizer.encode(_chat("hello"), special=False)) + 9
    state = model.arch.state_bytes(context=tokens, dtype="float32")
    assert said["state"] == f"{state:,}"
    assert re.search(r"^decode   9 tokens, [\d.,]+ tokens/s", done.stderr, re.M)
    assert "tokens/s" not in done.stdout


def test_only_the_text_goes_to_stdout(chat_model: Path, model: Any) -> None:
    done = process("run", chat_model, "hello", "--stats", *GREEDY)
    assert done.stdout == _said(model, _chat("hello"), special=False) + "\n"
    assert done.stderr.startswith(f"loading {chat_model}\nloaded ")


# -- chat


def test_a_piped_chat_answers_each_line(run, chat_model: Path, model: Any) -> None:
    done = run("chat", chat_model, *GREEDY, input="hello\n\nand again\n/reset\nhello\n/exit\nnever\n")
    first = _said(model, _chat("hello"), special=False)
    second = _said(model, _chat("hello", first, "and again"), special=False)
    assert done.exit_code == 0
    assert done.stdout == f"{first}\n{second}\n{first}\n"


def test_a_piped_chat_without_a_template_continues(run, base_model: Path, model: Any) -> None:
    done = run("chat", base_model, *GREEDY, input="hello\nhello")
    assert done.stdout == 2 * (_said(model, "hello", special=True) + "\n")
    assert "no chat template" in done.stderr


def test_chat_commands(run, chat_model: Path, model: Any) -> None:
    done = run("chat", chat_model, *GREEDY, input="/help\n/system be brief\nhello\n/stats\n/system -\n /exit\n")
    answer = _said(model, "<s>system: be brief\nuser: hello\nassistant: ", special=False)
    slash = _said(model, f"<s>user: hello\nassistant: {answer}\nuser:  /exit\nassistant: ", special=False)
    assert done.stdout == f"{answer}\n{slash}\n"
    for phrase in ("/reset", "(system message: be brief)", "context  ", "weights  ", "(no system message)"):
        assert phrase in done.stderr
    unknown = run("chat", chat_model, input="/nope\n")
    assert unknown.exit_code == 2
    assert "/nope is not a command; known: /reset" in unknown.stderr


def test_lines_joined_by_a_backslash_are_one_turn(run, chat_model: Path, model: Any) -> None:
    done = run("chat", chat_model, *GREEDY, input="one\\\ntwo\n")
    assert done.stdout == _said(model, _chat("one\ntwo"), special=False) + "\n"


def test_a_full_context_says_what_to_do(run, chat_model: Path) -> None:
    done = run("chat", chat_model, "--temperature", 0, "--context", 30, input="hello\nhello\n")
    assert "the context of 30 tokens is full; /reset starts a new conversation" in done.stderr
    assert done.exit_code == 2
    assert re.search(r"would be \d+ tokens, and the context holds 30; /reset starts a new one", done.stderr)
    assert done.stdout.count("\n") == 1


def test_a_conversation_reads_only_what_is_new(model: Any) -> None:
    talk = Conversation(model, SamplingOptions(max_new_tokens=7), capacity=400)
    first = "".join(talk.answer("hello"))
    read = talk.usage.prompt_tokens
    assert read == len(model.tokenizer.encode(_chat("hello"), special=False))
    list(talk.answer("and now"))
    rest = model.tokenizer.encode(_chat("hello", first, "and now"), special=False)
    assert talk.usage.prompt_tokens - read == len(rest) - read - 6  # six of seven new tokens were fed already
    talk.system = "something else"
    before = talk.usage.prompt_tokens
    list(talk.answer("once more"))
    assert talk.usage.prompt_tokens - before > len(rest)  # what was read has changed: all is read again
    assert talk.usage.state_bytes == model.arch.state_bytes(context=400, dtype="float32")


def test_a_stopped_answer_stays_in_the_conversation(model: Any) -> None:
    talk = Conversation(model, SamplingOptions(max_new_tokens=50), capacity=400)
    said = ""
    for piece in talk.answer("hello"):
        said += piece
        talk.stopped = len(said) >= 4
    assert talk.finish == "stopped"
    assert talk.messages == [{"role": "user", "content": "hello"}, {"role": "assistant", "content": said}]
    assert len(said) == 4
    plain = tiny_model(TEMPLATE)
    again = "".join(talk.answer("go on"))
    assert again == _said(plain, _chat("hello", said, "go on"), special=False, most=50)


# -- in a terminal


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, *arguments: object, state: Path) -> None:
        self.master, slave = pty.openpty()
        environment = ENVIRONMENT | {"TERM": "xterm", "XDG_STATE_HOME": str(state)}
        command = [sys.executable, "-m", "lamina", *map(str, arguments)]
        self.child = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.seen = ""

    def until(self, pattern: str, seconds: float = 60) -> str:
        """What is shown up to and with the first match of `pattern`, which is taken away."""
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < end, f"no {pattern!r} in {self.seen!r}"
            if not select.select([self.master], [], [], 1)[0]:
                continue
            try:
                self.seen += os.read(self.master, 4096).decode()
            except OSError:
                raise AssertionError(f"it ended without {pattern!r}: {self.seen!r}") from None
        text, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return text

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C, as the terminal would pass it on."""
        self.child.send_signal(signal.SIGINT)

    def interrupt_until(self, pattern: str) -> str:
        """As one who presses again when nothing happens: a signal just before input() waits is seen late."""
        for _ in range(10):
            self.interrupt()
            with contextlib.suppress(AssertionError):
                return self.until(pattern, seconds=2)
        return self.until(pattern, seconds=2)

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.master)


def test_chat_in_a_terminal(chat_model: Path, tmp_path: Path) -> None:
    """Ctrl-C stops an answer and not the program; arrow up recalls a line; Ctrl-D leaves."""
    options = ("--temperature", 0, "--max-new-tokens", 20_000, "--context", 30_000)
    terminal = Terminal("chat", chat_model, *options, state=tmp_path)
    try:
        assert "/help" in terminal.until("> ")
        terminal.type("hello\n")
        terminal.until(r"\d{40}")
        terminal.interrupt()
        terminal.until(r"\(stopped\)")
        terminal.until("> ")
        terminal.interrupt_until(r"Ctrl-D or /exit leaves")
        terminal.until("> ")
        terminal.type("\x1b[A")  # arrow up
        terminal.until("hello")
        terminal.type("\x15/stats\n")  # Ctrl-U empties the line
        terminal.until(r"context  \d+ of 30,000 tokens used")
        terminal.until("> ")
        terminal.type("\x04")
        assert terminal.child.wait(timeout=30) == 0
        assert "hello" in (tmp_path / "lamina" / "chat_history").read_text()
    finally:
        terminal.close()


def test_an_interrupted_piped_chat_leaves_quietly(chat_model: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "lamina",
        "chat",
        str(chat_model),
        "--max-new-tokens",
        "20000",
        "--context",
        "30000",
    ]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT)
    try:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("hello\n")
        child.stdin.flush()
        assert child.stdout.read(1).isdigit()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 130
    assert "Traceback" not in errors
