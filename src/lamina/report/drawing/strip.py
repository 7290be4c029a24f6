"""The strip of all layers: a cell for each, coloured by what its mixer and its feed-forward are."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from lamina.arch import Architecture, Block
from lamina.report import words
from lamina.report.drawing.hues import family, hues
from lamina.report.drawing.parts import BODY, SMALL
from lamina.report.drawing.pattern import Pattern
from lamina.report.drawing.scene import Cells, Dots, Line, Mark, Piece, column, flow, label, row

NARROWEST, WIDEST = 11.0, 46.0  # of a cell, with the gap after it
MIXER, FEED_FORWARD = 26.0, 11.0


class Look(NamedTuple):
    """How a kind of block looks in the strip: its colours, and how many dots tell it from others of the same."""

    mixers: tuple[str, ...]
    feed_forwards: tuple[str, ...]
    dots: int


def looks(different: Sequence[Block]) -> list[Look]:
    found: list[Look] = []
    for block in different:
        mixers, feed_forwards = hues(block)
        alike = sum((look.mixers, look.feed_forwards) == (mixers, feed_forwards) for look in found)
        found.append(Look(mixers, feed_forwards, alike))
    return found


def small_strip(found: Pattern, room: float) -> Piece:
    """All layers in one row, however narrow."""
    look = looks([kind.block for kind in found.kinds])
    return strip_row([look[p] for p in found.layers], min(16.0, room / len(found.layers)), 20, 8)


def strip(found: Pattern, room: float) -> Piece:
    """All layers in their order, in as many rows as they need, with their numbers."""
    look, places = looks([kind.block for kind in found.kinds]), found.layers
    rows = ceil(len(places) * NARROWEST / room)
    each = ceil(len(places) / rows)
    pitch = min(WIDEST, room / each)
    pieces = []
    for start in range(0, len(places), each):
        cells = strip_row([look[p] for p in places[start : start + each]], pitch)
        pieces.append(column([cells, _numbers(start, min(each, len(places) - start), pitch)], 3))
    above = [_sharing(found, pitch)] if rows == 1 and sharing(found) else []
    return column([*above, column(pieces, 8)], 2)


def sharing(found: Pattern) -> dict[int, list[int]]:
    """The layers that read keys and values of another, by that one."""
    readers: dict[int, list[int]] = {}
    for kind in found.kinds:
        for block, at in kind.variants_at():
            for op in block.ops():
                if (source := getattr(op, "kv_from", None)) is not None:
                    readers.setdefault(source, []).append(at)
    return {source: sorted(readers[source]) for source in sorted(readers)}


def _sharing(found: Pattern, pitch: float) -> Piece:
    """Lines from a layer to those that read its keys and values, above the strip."""
    lines: list[Mark] = []
    groups = sharing(found)
    high = 9.0 * len(groups) + 6
    for i, (source, readers) in enumerate(groups.items()):
        y = 2 + 9.0 * (len(groups) - 1 - i)
        middle = [(at + 0.5) * pitch - 1 for at in (source, *readers)]
        stroke = f"{family(next(found.block(source).ops()))}-edge"
        lines.append(Line(((middle[0], high), (middle[0], y), (middle[-1], y)), stroke, 1.5, radius=4))
        lines += [Line(((x, y), (x, high)), stroke, 1.5, True) for x in middle[1:]]
    text = label("keys and values read from an earlier layer", SMALL, colour="muted")
    width = pitch * len(found.layers)
    left = max(0.0, (next(iter(groups)) + 0.5) * pitch - text.width - 12)
    return Piece(max(width, text.width), high, tuple(lines), ((left, (high - text.height) / 2 - 2, text),))


def strip_row(cells: Sequence[Look], pitch: float, high: float = MIXER, low: float = FEED_FORWARD) -> Piece:
    """Cells next to each other: mixers above, feed-forwards below; the colours of several share a cell."""
    gap = min(2.0, 0.14 * pitch)
    boxes: dict[str, list[tuple[float, float, float, float]]] = {}
    spots: list[tuple[float, float]] = []
    for i, look in enumerate(cells):
        x, wide = i * pitch, pitch - gap
        mixer = high if look.feed_forwards else high + low + 2
        for families, y, height in ((look.mixers, 0.0, mixer), (look.feed_forwards, high + 2, low)):
            if not look.mixers and families:
                y, height = 0.0, high + low + 2
            for j, hue in enumerate(families):
                share = height / len(families)
                boxes.setdefault(f"{hue}-edge", []).append((x, y + j * share, wide, share))
        if pitch > 8:
            spots += [(x + wide / 2, high - 5.5 - 5 * j) for j in range(min(look.dots, 4))]
    marks: list[Mark] = [Cells(tuple(found), fill) for fill, found in boxes.items()]
    if spots:
        marks.append(Dots(tuple(spots), 1.7, "on"))
    return Piece(pitch * len(cells) - gap, high + low + 2, tuple(marks))


def _numbers(start: int, count: int, pitch: float) -> Piece:
    """Every layer's number, or every second, and so on, under the middle of its cell."""
    step = next(s for s in (1, 2, 4, 5, 8, 10, 16, 20, 32, 50, 100, 1000) if s * pitch >= 26)
    parts, width = [], max(pitch * count - 2, 20.0)
    for i in range(-start % step, count, step):
        text = label(str(start + i), SMALL, colour="muted")
        x = i * pitch + (pitch - 2 - text.width) / 2
        parts.append((min(max(0.0, x), width - text.width), 0.0, text))
    return Piece(width, SMALL * 1.36, parts=tuple(parts))


def legend(arch: Architecture, found: Pattern, room: float) -> Piece:
    """What each kind of cell is, and how many there are."""
    items = []
    for kind, look in zip(found.kinds, looks([kind.block for kind in found.kinds]), strict=True):
        what = kind.label if len(found.kinds) > 1 else _alone(arch)
        items.append(row([strip_row([look], 13, 14, 7), label(f"{len(kind.places)} × {what}", BODY)], 7))
    return flow(items, room, 22)


def _alone(arch: Architecture) -> str:
    """Of the only kind of block: its ops by name."""
    return " + ".join(dict.fromkeys(words.name_of(op) for op in arch.blocks[0].ops()))
