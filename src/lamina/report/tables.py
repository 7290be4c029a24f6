"""What a table of architectures is: columns as data, one set of rows for people and for JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from lamina.arch import Architecture
from lamina.report import words
from lamina.report.text import aligned

Record = dict[str, Any]


class Entry(NamedTuple):
    """A row before it is computed: an architecture, what its publisher says, and the context to price it at."""

    arch: Architecture
    facts: dict[str, Any]
    context: int


@dataclass(frozen=True)
class Column:
    """One fact of an architecture: its key in JSON, how it is computed, and how it is written for people.

    Fields: a column without a title is in the JSON alone; of those with one, the least `weight` goes first
    where a terminal is too narrow.
    """

    key: str
    value: Callable[[Entry], Any]
    title: str = ""
    text: Callable[[Record], str] | None = None
    right: bool = False
    weight: int = 9

    def write(self, record: Record) -> str:
        value = record[self.key]
        if self.text and value is not None:
            return self.text(record)
        return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _number(key: str) -> Callable[[Record], str]:
    return lambda record: words.count(record[key])


def _cache(record: Record) -> str:
    """The state in words, with a star where the context is longer than what is published."""
    if not record["state_bytes"]:
        return "none "
    beyond = record["context"] is not None and record["context"] < record["state_context"]
    return words.size(record["state_bytes"]) + ("*" if beyond else " " if record["context"] else "")


STAR = "* longer than the published context"

NAME = Column("name", lambda e: e.arch.name, "name")
FAMILY = Column("family", lambda e: e.arch.family, "family", weight=2)
PARAMETERS = Column("parameters", lambda e: e.arch.parameters().total, "parameters", _number("parameters"), True)
ACTIVE = Column(
    "active_parameters", lambda e: e.arch.parameters().active, "active", _number("active_parameters"), True, 5
)
ATTENTION = Column("attention", lambda e: words.attention(e.arch), "attention", weight=8)
LAYERS = Column("layers", lambda e: len(e.arch.blocks), "layers", right=True, weight=6)
WIDTH = Column("width", lambda e: e.arch.width, "width", right=True, weight=4)
VOCAB = Column("vocab", lambda e: e.arch.vocab, "vocabulary", right=True, weight=3)
CONTEXT = Column("context", lambda e: e.arch.context, "context", lambda r: words.tokens(r["context"]), True, 5)
STATE = Column("state_bytes", lambda e: e.arch.state_bytes(context=e.context), "cache", _cache, True, 8)
STATE_CONTEXT = Column("state_context", lambda e: e.context)
STATE_DTYPE = Column("state_dtype", lambda e: "bfloat16")
FLOPS = Column(
    "flops_per_token",
    lambda e: e.arch.flops(tokens=1, context=e.context),
    "FLOPs/token",
    _number("flops_per_token"),
    True,
    7,
)
RELEASED = Column("released", lambda e: e.facts.get("released"), "released", weight=1)

_PRICED = (STATE, STATE_CONTEXT, STATE_DTYPE)
LIST = (NAME, FAMILY, PARAMETERS, ATTENTION, LAYERS, WIDTH, CONTEXT, *_PRICED, RELEASED)
COMPARE = (NAME, PARAMETERS, ACTIVE, ATTENTION, LAYERS, WIDTH, VOCAB, CONTEXT, *_PRICED, FLOPS)


def records(columns: Sequence[Column], entries: Sequence[Entry]) -> list[Record]:
    """The rows, as JSON holds them."""
    return [{column.key: column.value(entry) for column in columns} for entry in entries]


def table(columns: Sequence[Column], rows: Sequence[Record], width: int | None = None) -> list[str]:
    """The rows for people: a heading and a line for each, in `width` characters if leaving out columns does it.

    The context that a cache is priced at stands in its heading.
    """
    shown = [column for column in columns if column.title]
    cells = {column.key: [_title(column, rows), *(column.write(row) for row in rows)] for column in shown}
    space = {key: max(map(len, column)) + 2 for key, column in cells.items()}
    while width and len(shown) > 2 and sum(space[column.key] for column in shown) - 2 > width:
        shown.remove(min(shown, key=lambda column: column.weight))
    lines = list(zip(*(cells[column.key] for column in shown), strict=True))
    return aligned(lines, [column.right for column in shown])


def _title(column: Column, rows: Sequence[Record]) -> str:
    return f"{column.title} at {words.tokens(rows[0]['state_context'])} " if column is STATE else column.title


def footnote(rows: Sequence[Record]) -> str:
    """What the stars in the rows mean; empty if there is none."""
    starred = any(_cache(row).endswith("*") for row in rows if row.get("state_bytes") is not None)
    return STAR if starred else ""
