"""Diagrams: pieces put one by one, each where those before it allow, and lines between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lamina.report.drawing.scene import Box, Cells, Dots, Line, Mark, Piece, Point


class Place(NamedTuple):
    """Where a piece stands."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def below(self) -> float:
        return self.y + self.height

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def centre(self) -> float:
        return self.y + self.height / 2


class Sketch:
    """Collects what a diagram is made of."""

    def __init__(self) -> None:
        self.parts: list[tuple[float, float, Piece]] = []
        self.under: list[Mark] = []
        self.places: list[Place] = []

    def put(self, piece: Piece, x: float, y: float) -> Place:
        """Puts a piece with its upper left corner at a point."""
        self.parts.append((x, y, piece))
        self.places.append(Place(x, y, piece.width, piece.height))
        return self.places[-1]

    def put_middle(self, piece: Piece, middle: float, y: float) -> Place:
        """Puts a piece so that its middle is there."""
        return self.put(piece, middle - piece.width / 2, y)

    def mark(self, *marks: Mark) -> None:
        """Marks under all pieces."""
        self.under += marks

    def arrow(self, *points: Point, stroke: str = "rail", dashed: bool = False) -> None:
        self.under.append(Line(points, stroke, 1.5, True, dashed, 9))

    def line(self, *points: Point, stroke: str = "rail", dashed: bool = False) -> None:
        self.under.append(Line(points, stroke, 1.5, False, dashed, 9))

    def up(self, lower: Place, upper: Place) -> None:
        """An arrow from a piece to the one above: straight if it meets it, else with a bend halfway."""
        x, y = lower.middle, (lower.y + upper.below) / 2
        if upper.x <= x <= upper.right:
            self.arrow((x, lower.y), (x, upper.below))
        else:
            self.arrow((x, lower.y), (x, y), (upper.middle, y), (upper.middle, upper.below))

    def piece(self, width: float = 0.0, height: float = 0.0) -> Piece:
        """The diagram, at least this large."""
        ends = [end for mark in self.under for end in _ends(mark)]
        width = max([width, *(p.right for p in self.places), *(x for x, _ in ends)])
        height = max([height, *(p.below for p in self.places), *(y for _, y in ends)])
        return Piece(width, height, tuple(self.under), tuple(self.parts))


def _ends(mark: Mark) -> Iterable[Point]:
    """Points that a mark reaches to the right and downwards."""
    match mark:
        case Box():
            yield mark.x + mark.width, mark.y + mark.height
        case Line():
            yield from mark.points
        case Cells():
            yield from ((x + w, y + h) for x, y, w, h in mark.boxes)
        case Dots():
            yield from ((x + mark.radius, y + mark.radius) for x, y in mark.centres)
