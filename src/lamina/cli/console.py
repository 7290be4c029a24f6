"""What is said to a person: tables and text on stdout, everything else on stderr.

rich draws what moves (bars, spinners); it is imported only for that, for it takes as long as all of `lamina list`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

BOLD, DIM, RED, GREEN = "1", "2", "31", "32"


def styled(text: str, style: str, stream: IO[str]) -> str:
    """The text in a style, where the stream is a terminal that shows it."""
    plain = not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else f"\033[{style}m{text}\033[0m"


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_lines(lines: Iterable[str]) -> None:
    """To stdout, the first line as a heading."""
    for i, line in enumerate(lines):
        print(line if i else styled(line, BOLD, sys.stdout))


def terminal_width() -> int | None:
    """The width of the terminal that stdout is; None where it is none, and lines may be as long as they are."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def print_table(columns: Any, rows: list[dict[str, Any]]) -> None:
    """A table of architectures, with its footnote."""
    from lamina.report.tables import footnote, table

    note = footnote(rows)
    print_lines([*table(columns, rows, terminal_width()), *([note] if note else [])])


def say(text: str = "", style: str = DIM) -> None:
    """Lines on stderr, for people."""
    for line in text.split("\n"):
        print(styled(line, style, sys.stderr), file=sys.stderr, flush=True)


def errors() -> Console:
    """stderr, as rich sees it."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False)


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """While something takes long: a spinner on a terminal, a line elsewhere."""
    if sys.stderr.isatty():
        with errors().status(what):
            yield
    else:
        say(what)
        yield
