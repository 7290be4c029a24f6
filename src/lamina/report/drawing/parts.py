"""The small parts that all drawings are made of: pills, boxes of words, cards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from lamina.report.drawing.scene import Align, Box, Piece, column, framed, label, padded, paragraph, sized

Make: TypeAlias = Callable[[float], Piece]
"""A card of at least this height."""

PAGE, MARGIN, GAP, PADDING = 1200.0, 48.0, 24.0, 20.0
SMALL, BODY, NAME, HEADING, TITLE = 11.5, 12.0, 13.5, 15.0, 34.0
"""Sizes of text at the width of a page; none is smaller than SMALL."""


def columns(count: int, room: float, gap: float = GAP) -> float:
    """The width of each of `count` columns."""
    return (room - (count - 1) * gap) / count


def pill(text: str, family: str = "norm", width: float = 0.0, size: float = BODY) -> Piece:
    """A few words on a rounded ground: a norm, a gate."""
    words = label(text, size, colour=f"{family}-deep")
    inner = sized(padded(words, 10, 3.5), max(width, words.width + 20), align="middle")
    return framed(inner, f"{family}-soft", f"{family}-edge", inner.height / 2)


def named_box(
    name: str,
    said: Sequence[str],
    family: str,
    width: float,
    marked: frozenset[str] = frozenset(),
    size: float = NAME,
) -> Piece:
    """A part by its name, with a line for each thing that is said of it; `marked` lines have a bar beside them."""
    room = width - 28
    head = paragraph(name, room, size, True, f"{family}-deep")
    lines = [_marked(head, name in marked)]
    for phrase in said:
        lines.append(_marked(paragraph(phrase, room, BODY, colour="ink"), phrase in marked))
    piece = padded(sized(column(lines, 1), width - 28), 14, 9, 10)
    return framed(piece, f"{family}-soft", f"{family}-edge", 9)


def _marked(piece: Piece, wanted: bool) -> Piece:
    return piece.with_under(Box(-9, 1, 4, piece.height - 2, "accent-edge", None, 2)) if wanted else piece


def card(
    title: str,
    body: Piece,
    width: float,
    note: str = "",
    height: float = 0.0,
    inside: float = PADDING,
    down: Align = "middle",
) -> Piece:
    """A titled panel, at least so high; `down` says where the body stands in more room than it needs."""
    room = width - 2 * inside
    head: list[Piece] = [paragraph(title, room, HEADING, True, "ink")] if title else []
    head += [paragraph(note, room, BODY)] if note else []
    top, above = column(head, 2, width=room), min(17.0, inside)
    gap = 14 if head else 0
    rest = sized(body, room, height - above - inside - top.height - gap, down=down)
    return framed(padded(column([top, rest], gap), inside, above, inside), "panel", "line", 12)


def fit(makes: Sequence[Make | Piece]) -> list[Piece]:
    """Cards that are all as high as the highest of them."""
    highest = max((m.height if isinstance(m, Piece) else m(0).height) for m in makes)
    return [m if isinstance(m, Piece) else m(highest) for m in makes]


def swatch(family: str, side: float = 12.0, height: float = 0.0) -> Piece:
    """A spot of a family's colour."""
    height = height or side
    return Piece(side, height, (Box(0, 0, side, height, f"{family}-edge", None, 2.5),))
