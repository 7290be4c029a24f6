"""Line plots: numbers that grow with a length, both axes logarithmic."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lamina.report.drawing.parts import SMALL
from lamina.report.drawing.scene import Dots, Line, Piece, column, label, row
from lamina.report.drawing.sketch import Sketch

ROUND = (1.0, 2.0, 5.0)


@dataclass(frozen=True)
class Series:
    """A line: its name, the colour family it is drawn in, and its values at each x."""

    name: str
    colour: str
    values: tuple[float, ...]


def plot(
    series: Sequence[Series],
    at: Sequence[int],
    width: float,
    height: float,
    names: Callable[[int], str],
    said: Callable[[float], str],
) -> Piece:
    """The lines over the values of x in `at`, which `names` writes; `said` writes those of y.

    Units: width and height in pixels, of the whole with its labels
    """
    s, ticks = Sketch(), _ticks([v for line in series for v in line.values])
    texts = [label(said(tick), SMALL, colour="muted") for tick in ticks]
    left, below = max(text.width for text in texts) + 8, height - 24
    place_x = _scale(at, left + 6, width - 14)
    place_y = _scale(ticks, below, 8.0)
    for tick, text in zip(ticks, texts, strict=True):
        y = place_y(tick)
        s.line((left, y), (width, y), stroke="line")
        s.put(text, left - 6 - text.width, y - text.height / 2)
    for x in at:
        name = label(names(x), SMALL, colour="muted")
        s.put(name, place_x(x) - name.width / 2, below + 6)
    for line in series:
        points = tuple((place_x(x), place_y(y)) for x, y in zip(at, line.values, strict=True))
        s.mark(Line(points, f"{line.colour}-edge", 2.0, radius=0), Dots(points, 3.0, f"{line.colour}-edge"))
    return s.piece(width)


def legend(series: Sequence[Series]) -> Piece:
    """The names of the lines beside their colours."""
    signs = (Piece(18, 8, (Line(((0, 4), (18, 4)), f"{line.colour}-edge", 2.0, radius=0),)) for line in series)
    return column([row([sign, label(line.name, SMALL)], 7) for sign, line in zip(signs, series, strict=True)], 2)


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers from below the least to above the largest, not too many."""
    low, high = min(values), max(values)
    every = [step * 10.0**power for power in range(math.floor(math.log10(low)), 16) for step in ROUND]
    first = max(i for i, tick in enumerate(every) if tick <= low)
    last = min(i for i, tick in enumerate(every) if tick >= high)
    found = every[first : last + 1] if last > first else every[first : last + 2]
    return (
        found if len(found) <= 7 else [tick for tick in found if f"{tick:e}"[0] == "1" or tick in (found[0], found[-1])]
    )


def _scale(ends: Sequence[float], start: float, stop: float) -> Callable[[float], float]:
    """Where a number stands between two places, by its logarithm."""
    low, high = math.log(min(ends)), math.log(max(ends))
    return lambda value: start + (stop - start) * (math.log(value) - low) / ((high - low) or 1.0)
