"""Cards in columns of one width, so that no column is much longer than another, and all end at one line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from lamina.report.drawing.parts import GAP, Make, columns
from lamina.report.drawing.scene import Piece

MOST = 190.0  # that a card is made taller at most, to end with the others
TRIED = 729  # arrangements that are tried; beyond, the largest cards go first, each where there is most room


class Spot(NamedTuple):
    """A card in a column: where it begins, what makes it (none where one from the left reaches over), its height."""

    y: float
    make: Make | None
    height: float
    loose: bool


def grid(fixed: Sequence[tuple[Make, int]], loose: Sequence[Make], room: float, count: int) -> Piece:
    """Cards in their order (each with the columns that it spans), then others where they fit best."""
    width, heights = columns(count, room), [0.0] * count
    stacks: list[list[Spot]] = [[] for _ in range(count)]
    for make, span in fixed:
        high = make(0).height
        tops = [max(heights[i : i + span]) for i in range(count - span + 1)]
        at = tops.index(min(tops))
        stacks[at].append(Spot(tops[at], make, high, False))
        for i in range(at, at + span):
            heights[i] = tops[at] + high + GAP
        if span > 1:
            for i in range(at + 1, at + span):
                stacks[i].append(Spot(tops[at], None, high, False))
    sizes = [make(0).height for make in loose]
    for make, high, at in zip(loose, sizes, _arranged(heights, sizes, count), strict=True):
        stacks[at].append(Spot(heights[at], make, high, True))
        heights[at] += high + GAP
    parts = []
    for i, stack in enumerate(stacks):
        parts += [(i * (width + GAP), y, piece) for y, piece in _stretched(stack, max(heights) - GAP)]
    return Piece(room, max(heights) - GAP, parts=tuple(parts))


def _arranged(heights: Sequence[float], sizes: Sequence[float], count: int) -> Sequence[int]:
    """A column for each size, so that the tallest is as low as can be; nearly so where there are many."""
    if count ** len(sizes) > TRIED:
        now, chosen = list(heights), [0] * len(sizes)
        for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
            chosen[i] = now.index(min(now))
            now[chosen[i]] += sizes[i] + GAP
        return chosen

    def unevenness(columns: Sequence[int]) -> tuple[float, float]:
        now = list(heights)
        for at, size in zip(columns, sizes, strict=True):
            now[at] += size + GAP
        return max(now), -min(now)

    return min(product(range(count), repeat=len(sizes)), key=unevenness)


def _stretched(stack: Sequence[Spot], bottom: float) -> list[tuple[float, Piece]]:
    """The cards of a column: those above a gap fill it, and loose ones are taller so that the last ends at `bottom`."""
    if not stack:
        return []
    more = bottom - (stack[-1].y + stack[-1].height)
    able = [i for i, spot in enumerate(stack) if spot.loose] or [len(stack) - 1]
    each = more / len(able) if more / len(able) <= MOST else 0.0
    found, down = [], 0.0
    for i, spot in enumerate(stack):
        after = stack[i + 1].y - GAP if i + 1 < len(stack) else 0.0
        high = max(spot.height, after - spot.y) + (each if i in able else 0.0)
        if spot.make:
            found.append((spot.y + down, spot.make(high)))
        down += each if i in able else 0.0
    return found
