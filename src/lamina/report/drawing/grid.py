"""Cards in columns of one width, so that no column is much longer than another, and all end at one line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from lamina.report.drawing.parts import GAP, Make, columns
from lamina.report.drawing.scene import Piece

TRIED = 6561  # arrangements that are tried; beyond, each card goes where there is most room


def grid(fixed: Sequence[tuple[Make, int]], loose: Sequence[Make], room: float, count: int) -> Piece:
    """Cards in their order (each with the columns that it spans), then others where they fit best."""
    width, heights = columns(count, room), [0.0] * count
    stacks: list[list[tuple[float, Make, float, bool]]] = [[] for _ in range(count)]
    for make, span in fixed:
        high = make(0).height
        tops = [max(heights[i : i + span]) for i in range(count - span + 1)]
        at = tops.index(min(tops))
        stacks[at].append((tops[at], make, high, False))
        for i in range(at, at + span):
            heights[i] = tops[at] + high + GAP
        if span > 1:
            for i in range(at + 1, at + span):
                stacks[i].append((tops[at], lambda _: Piece(0, 0), high, False))
    sizes = [make(0).height for make in loose]
    for make, high, at in zip(loose, sizes, _arranged(heights, sizes, count), strict=True):
        stacks[at].append((heights[at], make, high, True))
        heights[at] += high + GAP
    parts = []
    for i, stack in enumerate(stacks):
        parts += [(i * (width + GAP), y, piece) for y, piece in _stretched(stack, max(heights) - GAP)]
    return Piece(room, max(heights) - GAP, parts=tuple(parts))


def _arranged(heights: Sequence[float], sizes: Sequence[float], count: int) -> Sequence[int]:
    """A column for each size, so that the tallest is as low as can be."""
    if count ** len(sizes) > TRIED:
        now, chosen = list(heights), []
        for size in sizes:
            at = now.index(min(now))
            now[at] += size + GAP
            chosen.append(at)
        return chosen

    def unevenness(columns: Sequence[int]) -> tuple[float, float]:
        now = list(heights)
        for at, size in zip(columns, sizes, strict=True):
            now[at] += size + GAP
        return max(now), -min(now)

    return min(product(range(count), repeat=len(sizes)), key=unevenness)


def _stretched(stack: Sequence[tuple[float, Make, float, bool]], bottom: float) -> list[tuple[float, Piece]]:
    """The cards of a column, its loose ones made taller (or the last, if none is) so that the last ends at `bottom`."""
    more = bottom - (stack[-1][0] + stack[-1][2]) if stack else 0.0
    able = [i for i, (_, _, _, loose) in enumerate(stack) if loose] or [len(stack) - 1]
    found, down = [], 0.0
    for i, (y, make, high, _) in enumerate(stack):
        extra = more / len(able) if i in able else 0.0
        found.append((y + down, make(high + extra if extra else 0.0)))
        down += extra
    return [(y, piece) for y, piece in found if piece.width]
