"""Lines of text in columns. (rich lays tables out too, but takes longer than all else that `lamina list` does.)"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import zip_longest


def aligned(rows: Sequence[Sequence[str]], right: Sequence[bool]) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest cell; `right` says which are flush right."""
    widths = widest(rows)
    return [
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in rows
    ]


def widest(rows: Sequence[Sequence[str]]) -> list[int]:
    """The width of the widest cell of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def wrapped(text: str, width: int | None) -> list[str]:
    """A text in lines of at most `width` characters."""
    return textwrap.wrap(text, width or 10_000, break_long_words=False, break_on_hyphens=False) or [""]


def listed(pairs: Sequence[tuple[str, str]], width: int | None = None) -> list[str]:
    """Names and what is said of each, which is wrapped beside the name where it is wider than `width`."""
    indent = max(len(name) for name, _ in pairs) + 2
    room = max(20, width - indent) if width else 10_000
    lines = []
    for name, text in pairs:
        first, *others = wrapped(text, room)
        lines.append(f"{name:<{indent}}{first}".rstrip())
        lines.extend(" " * indent + other for other in others)
    return lines


def beside(left: Sequence[str], right: Sequence[str], width: int | None = None) -> list[str]:
    """Two pieces of text next to each other, or the second below where they are wider than `width` together."""
    start = max(map(len, left)) + 4
    if width and start + max(map(len, right)) > width:
        return [*left, "", *right]
    return [f"{a:<{start}}{b}".rstrip() for a, b in zip_longest(left, right, fillvalue="")]
