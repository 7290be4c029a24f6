"""What a drawing is before it is SVG: pieces whose sizes are known, laid out in rows, columns and frames."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from lamina.report.drawing import font

Point: TypeAlias = tuple[float, float]
Align = Literal["start", "middle", "end"]
_TIMES = re.compile(r"(?<=[\d)] )x(?= )|(?<=[ (])x(?=\d)")
_SHARE = {"start": 0.0, "middle": 0.5, "end": 1.0}


@dataclass(frozen=True)
class Text:
    """A line of text; x, y is where its baseline starts."""

    x: float
    y: float
    text: str
    size: float
    bold: bool
    colour: str

    @property
    def box(self) -> tuple[float, float, float, float]:
        """left, top, right, bottom."""
        right = self.x + font.width(self.text, self.size, self.bold)
        return self.x, self.y - font.ASCENT * self.size, right, self.y + font.DESCENT * self.size


@dataclass(frozen=True)
class Box:
    """A rectangle, filled and stroked with the colours of roles; None leaves that out."""

    x: float
    y: float
    width: float
    height: float
    fill: str | None = None
    stroke: str | None = None
    radius: float = 0.0
    thick: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Line:
    """A line through points, its corners rounded, with a head where it ends if `arrow`."""

    points: tuple[Point, ...]
    stroke: str = "rail"
    thick: float = 1.5
    arrow: bool = False
    dashed: bool = False
    radius: float = 6.0


@dataclass(frozen=True)
class Cells:
    """Many rectangles (x, y, width, height) of one colour."""

    boxes: tuple[tuple[float, float, float, float], ...]
    fill: str


@dataclass(frozen=True)
class Dots:
    """Many circles (x, y) of one colour and radius."""

    centres: tuple[Point, ...]
    radius: float
    colour: str


Mark: TypeAlias = Text | Box | Line | Cells | Dots


@dataclass(frozen=True)
class Piece:
    """A part of a drawing: its size, its marks, and the pieces in it with where they stand."""

    width: float
    height: float
    marks: tuple[Mark, ...] = ()
    parts: tuple[tuple[float, float, Piece], ...] = ()
    over: tuple[Mark, ...] = ()

    def walk(self, x: float = 0.0, y: float = 0.0) -> Iterator[tuple[float, float, Mark]]:
        """Every mark and the origin of the piece it belongs to, in the order of painting."""
        for mark in self.marks:
            yield x, y, mark
        for dx, dy, part in self.parts:
            yield from part.walk(x + dx, y + dy)
        for mark in self.over:
            yield x, y, mark

    def with_over(self, *marks: Mark) -> Piece:
        return replace(self, over=(*self.over, *marks))

    def with_under(self, *marks: Mark) -> Piece:
        return replace(self, marks=(*marks, *self.marks))


def blank(width: float = 0.0, height: float = 0.0) -> Piece:
    return Piece(width, height)


def drawn(width: float, height: float, *marks: Mark) -> Piece:
    return Piece(width, height, marks)


def typeset(text: str) -> str:
    """The text as it is printed: a times sign between numbers, and no character that the font has not."""
    return font.shown(_TIMES.sub("×", text))


def label(text: str, size: float = 12, bold: bool = False, colour: str = "ink") -> Piece:
    """A line of text, as high as a line."""
    text = typeset(text)
    return Piece(
        font.width(text, size, bold), size * 1.36, (Text(0, size * 1.04, text, size, bold, colour),) if text else ()
    )


def paragraph(text: str, room: float, size: float = 12, bold: bool = False, colour: str = "muted") -> Piece:
    """Text in lines no wider than `room`."""
    lines = font.wrapped(typeset(text), size, room, bold)
    return column([label(line, size, bold, colour) for line in lines])


def row(pieces: Sequence[Piece], gap: float = 0.0, align: Align = "middle") -> Piece:
    """Pieces next to each other."""
    height, x, parts = max((p.height for p in pieces), default=0.0), 0.0, []
    for piece in pieces:
        parts.append((x, (height - piece.height) * _SHARE[align], piece))
        x += piece.width + gap
    return Piece(max(0.0, x - gap), height, parts=tuple(parts))


def column(pieces: Sequence[Piece], gap: float = 0.0, align: Align = "start", width: float = 0.0) -> Piece:
    """Pieces below each other."""
    width, y, parts = max([width, *(p.width for p in pieces)]), 0.0, []
    for piece in pieces:
        parts.append(((width - piece.width) * _SHARE[align], y, piece))
        y += piece.height + gap
    return Piece(width, max(0.0, y - gap), parts=tuple(parts))


def spread(pieces: Sequence[Piece], width: float, align: Align = "middle") -> Piece:
    """Pieces next to each other over all of a width: the first at its start, the last at its end."""
    rest = width - sum(p.width for p in pieces)
    return row(pieces, rest / max(1, len(pieces) - 1), align)


def flow(pieces: Sequence[Piece], room: float, gap: float = 12.0, lead: float = 6.0) -> Piece:
    """Pieces in as many rows as they need."""
    rows: list[list[Piece]] = [[]]
    for piece in pieces:
        if rows[-1] and sum(p.width + gap for p in rows[-1]) + piece.width > room:
            rows.append([])
        rows[-1].append(piece)
    return column([row(line, gap) for line in rows], lead)


def padded(piece: Piece, x: float, y: float, below: float | None = None) -> Piece:
    return Piece(piece.width + 2 * x, piece.height + y + (y if below is None else below), parts=((x, y, piece),))


def sized(
    piece: Piece, width: float | None = None, height: float | None = None, align: Align = "start", down: Align = "start"
) -> Piece:
    """The piece in a space of at least this size."""
    w, h = max(width or 0.0, piece.width), max(height or 0.0, piece.height)
    return Piece(w, h, parts=(((w - piece.width) * _SHARE[align], (h - piece.height) * _SHARE[down], piece),))


def framed(piece: Piece, fill: str | None, stroke: str | None, radius: float = 8.0, **style: object) -> Piece:
    """The piece on a rectangle of its size."""
    return piece.with_under(Box(0, 0, piece.width, piece.height, fill, stroke, radius, **style))  # type: ignore[arg-type]
