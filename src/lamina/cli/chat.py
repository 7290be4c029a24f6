"""`lamina chat`: a conversation, in a terminal or through a pipe."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamina.cli.console import RED, say
from lamina.cli.loading import Device, Dtype, Source, load_causal
from lamina.cli.options import SamplingOptions, takes
from lamina.cli.run import write
from lamina.errors import LaminaError
from lamina.report import words

if TYPE_CHECKING:
    from lamina.cli.conversation import Conversation

HELP = """/reset         forget the conversation
/system TEXT   set the system message (no TEXT: show it; -: remove it)
/stats         speed, and bytes of weights and state
/help          this
/exit          leave (so does Ctrl-D); Ctrl-C stops an answer
A line that ends in \\ goes on in the next."""
COMMANDS = ("/reset", "/system", "/stats", "/help", "/exit")
CONTEXT = 8192  # tokens of state to allocate, unless the model has less or the user says otherwise

Context = Annotated[
    int | None,
    typer.Option(
        min=2,
        metavar="N",
        show_default=False,
        help=f"Tokens the conversation may grow to (default: {CONTEXT}, or the model's context if less).",
    ),
]


@takes(SamplingOptions, temperature=0.7, top_p=0.95, max_new_tokens=1024)
def chat(
    source: Source,
    options: SamplingOptions,
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="The system message.")] = None,
    context: Context = None,
    dtype: Dtype = None,
    device: Device = "cpu",
) -> None:
    """Talk with a model. Through a pipe each line is a turn, and only the answers go to stdout."""
    from lamina.cli.conversation import Conversation
    from lamina.generation import Sampling

    Sampling(**options.sampling)  # said before minutes of loading
    model = load_causal(source, dtype, device)
    most = model.arch.context or CONTEXT
    if context is not None and context > most:
        raise LaminaError(f"--context {context:,} is more than the model's context of {most:,}")
    talk = Conversation(model, options, context or min(most, CONTEXT), system)
    if not talk.templated and system is not None:
        raise LaminaError(f"{source} has no chat template, so it takes no system message; leave out --system")
    interactive = sys.stdin.isatty()
    _greet(talk, interactive)
    for line in _lines(interactive):
        if not _turn(talk, line, interactive):
            return


def _greet(talk: Conversation, interactive: bool) -> None:
    if not talk.templated:
        say("this model has no chat template: each text is continued by itself, without memory of the others")
    if interactive:
        arch = talk.model.arch
        name, size = arch.name or "model", words.count(arch.parameters().total)
        say(f"{name}, {size} parameters, context {talk.capacity:,} tokens; /help lists commands, Ctrl-D leaves")


def _turn(talk: Conversation, line: str, interactive: bool) -> bool:
    """One line of the user: a command, or a text to answer. False: leave."""
    if not line.strip():
        return True
    word, _, rest = line.rstrip().partition(" ")
    try:
        if word.startswith("/") and word[1:].isalpha():  # "/etc/passwd" is text, and so is " /text"
            return _command(talk, word, rest.strip())
        _answer(talk, line, interactive)
    except LaminaError as error:
        if not interactive:
            raise
        say(str(error), style=RED)
    return True


def _answer(talk: Conversation, text: str, interactive: bool) -> None:
    def stop() -> None:
        talk.stopped = True

    ended = ""
    try:
        with _interruptible(stop) if interactive else contextlib.nullcontext():
            ended = write(talk.answer(text))
    except KeyboardInterrupt:
        talk.forget_state()  # stopped in the middle of a step: what it holds is not known
        if not interactive:
            raise
    finally:
        if talk.finish and not ended.endswith("\n"):
            print(flush=True)
    if talk.finish == "length":
        say("(stopped at --max-new-tokens)")
    elif talk.finish == "full":
        advice = "; /reset starts a new conversation" if talk.templated else ""
        say(f"(the context of {talk.capacity:,} tokens is full{advice})")
    elif talk.finish == "stopped":
        say("(stopped)")
    if interactive:
        print()


def _command(talk: Conversation, word: str, rest: str) -> bool:
    """A line that begins with a slash. False: leave.

    Raises: LaminaError for one that is not known
    """
    if word == "/exit":
        return False
    if word == "/reset":
        talk.reset()
        say("(a new conversation)")
    elif word == "/stats":
        for line in talk.usage.lines(talk.model):
            say(line)
        say(f"context  {talk.length:,} of {talk.capacity:,} tokens used")
    elif word == "/help":
        say(HELP)
    elif word == "/system":
        _set_system(talk, rest)
    else:
        known = ", ".join(COMMANDS)
        raise LaminaError(f"{word} is not a command; known: {known}. A space before it makes it text")
    return True


def _set_system(talk: Conversation, text: str) -> None:
    if not talk.templated:
        raise LaminaError("this model has no chat template, so it takes no system message")
    if text:
        talk.system = None if text == "-" else text
    say(f"(system message: {talk.system})" if talk.system else "(no system message)")


# -- input


def _lines(interactive: bool) -> Iterator[str]:
    """The user's lines, those that end in a backslash joined with the next."""
    read = _prompting() if interactive else _piped
    pending: list[str] = []
    while (line := read("... " if pending else "> ")) is not None:
        if line.endswith("\\"):
            pending.append(line[:-1])
            continue
        yield "\n".join([*pending, line])
        pending = []
    if pending:
        yield "\n".join(pending)


def _piped(prompt: str) -> str | None:
    try:
        line = sys.stdin.readline()
    except UnicodeDecodeError as error:
        raise LaminaError(f"stdin is no UTF-8 text ({error.reason} at byte {error.start})") from None
    return line.rstrip("\r\n") if line else None


def _prompting() -> Callable[[str], str | None]:
    """Lines typed at a prompt, edited and recalled with readline where there is one."""
    through_readline = sys.stdout.isatty()
    if through_readline:
        with contextlib.suppress(ImportError):
            _remember_lines()

    def read(prompt: str) -> str | None:
        while True:
            try:
                if through_readline:
                    return input(_coloured(prompt))
                print(prompt, end="", file=sys.stderr, flush=True)
                return input()
            except KeyboardInterrupt:
                say("\n(Ctrl-D or /exit leaves)")
                prompt = "> "
            except EOFError:
                say()
                return None
            except UnicodeDecodeError:
                say("(that was no UTF-8 text)")

    return read


def _coloured(prompt: str) -> str:
    """The prompt in colour; readline is told which characters take no room."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in (None, "dumb"):
        return prompt
    return f"\001\033[1;36m\002{prompt}\001\033[0m\002"


def _remember_lines() -> None:
    """Line editing, with the lines of earlier chats (kept in XDG_STATE_HOME, for their owner's eyes only)."""
    import atexit
    import readline

    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    file = state / "lamina" / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(1000)

    def keep() -> None:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o600)
            readline.write_history_file(file)

    atexit.register(keep)


@contextlib.contextmanager
def _interruptible(stop: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C calls `stop`, which takes effect between two steps of the model; a second one interrupts at once."""

    def handle(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
