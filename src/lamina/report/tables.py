"""What a table of architectures is: columns as data, one set of rows for people and for JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from lamina.arch import Architecture
from lamina.report import words
from lamina.report.text import aligned

Record = dict[str, Any]


class Entry(NamedTuple):
    """A row before it is computed: an architecture, what its publisher says, and the context to price it at.

    `costs` are what it costs elsewhere, where a table has such columns.
    """

    arch: Architecture
    facts: dict[str, Any]
    context: int
    costs: Sequence[Record] = ()


@dataclass(frozen=True)
class Column:
    """One fact of an architecture: its key in JSON, how it is computed, and how it is written for people.

    Fields: a column without a title is in the JSON alone, one without a value in the table alone; of those with a
    title, the least `weight` goes first where a terminal is too narrow.
    """

    key: str
    value: Callable[[Entry], Any] | None
    title: str = ""
    text: Callable[[Record], str] | None = None
    right: bool = False
    weight: int = 9

    def hidden(self) -> Column:
        """The same, in the JSON alone."""
        return replace(self, title="")

    def write(self, record: Record) -> str:
        value = record.get(self.key)
        if self.text and (self.value is None or value is not None):
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
COMPARE = (NAME, PARAMETERS, ACTIVE, ATTENTION, LAYERS, WIDTH, VOCAB, CONTEXT)
COSTS = Column("costs", lambda e: list(e.costs))


def compare_columns(contexts: Sequence[int], bounded: bool) -> tuple[Column, ...]:
    """The columns of a comparison: what architectures are, and what they cost at each context."""
    first = costs_at(0, contexts[0], bounded, weights=True)
    further = (column for i, context in enumerate(contexts[1:], 1) for column in costs_at(i, context, bounded))
    return (*COMPARE, *(c.hidden() for c in (STATE, STATE_CONTEXT, STATE_DTYPE, FLOPS)), COSTS, *first, *further)


def costs_at(place: int, context: int, bounded: bool, weights: bool = False) -> Iterator[Column]:
    """Columns of the cost in one place of a row's `costs`."""

    def of(record: Record) -> Record:
        return record["costs"][place]

    def state(record: Record) -> str:
        if not (nbytes := of(record)["state_bytes"]):
            return "none "
        beyond = record["context"] is not None and record["context"] < context
        return words.size(nbytes) + ("*" if beyond else " " if record["context"] else "")

    at = words.tokens(context)
    if weights:
        yield Column("weights", None, "weights", lambda r: words.size(of(r)["weight_bytes"]), True, 7)
    yield Column(f"state {at}", None, f"state at {at} ", state, True, 8)
    yield Column(f"flops {at}", None, f"FLOPs/token at {at}", lambda r: words.count(of(r)["decode_flops"]), True, 6)
    if bounded:
        yield Column(f"first {at}", None, "first token >=", lambda r: _bound(of(r), "first_token_seconds"), True, 6)
        yield Column(f"next {at}", None, "token >=", lambda r: _bound(of(r), "token_seconds"), True, 7)


def _bound(cost: Record, key: str) -> str:
    return words.seconds(cost["bounds"][key])


def records(columns: Sequence[Column], entries: Sequence[Entry]) -> list[Record]:
    """The rows, as JSON holds them."""
    return [{column.key: column.value(entry) for column in columns if column.value} for entry in entries]


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
    costs = [(row, cost["context"]) for row in rows for cost in row.get("costs", ())]
    priced = costs or [(row, row["state_context"]) for row in rows if row.get("state_bytes")]
    starred = any(row["context"] is not None and row["context"] < context for row, context in priced)
    return STAR if starred else ""
