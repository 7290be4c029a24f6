"""The fact sheet: large numbers in a band, and a card of what the parts weigh and a sequence leaves behind."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lamina.arch import Architecture
from lamina.arch.feedforward import FeedForward
from lamina.report import words
from lamina.report.drawing.hues import family
from lamina.report.drawing.parts import BODY, swatch
from lamina.report.drawing.scene import Box, Cells, Piece, blank, column, label, row, sized, spread
from lamina.report.sheet import CONTEXTS, parameters_by_part

FURTHER = 1 << 14  # tokens over which the growth of a state is taken, so that strides even out


def tiles(arch: Architecture, width: float) -> Piece:
    """The numbers that one asks for first."""
    total, active, _ = arch.parameters()
    pairs = [(words.count(total), "parameters")]
    if active != total:
        pairs.append((words.count(active), "active a token"))
    pairs += [(str(len(arch.blocks)), "layers"), (f"{arch.width:,}", "width"), (f"{arch.vocab:,}", "vocabulary")]
    if arch.context:
        pairs.append((words.tokens(arch.context), "context"))
    growth = (arch.state_bytes(context=CONTEXTS[-1] + FURTHER) - arch.state_bytes(context=CONTEXTS[-1])) / FURTHER
    pairs.append((words.size(growth) if growth else "none", "state per new token"))
    held = arch.state_bytes(context=32768)
    pairs.append((words.size(held) if held else "none", "state at 32k"))
    return spread([tile(value, name) for value, name in pairs], width)


def tile(value: str, name: str, size: float = 22) -> Piece:
    return column([label(value, size, True), label(name, BODY, colour="muted")], 1)


def weights(arch: Architecture, room: float) -> Piece:
    """Where the parameters are."""
    parts = {name: value for name, value in parameters_by_part(arch).items() if value > 0}
    total, x, cells, colours = sum(parts.values()), 0.0, [], _colours(arch)
    for name, value in parts.items():
        wide = room * value / total
        cells.append(Cells(((x, 0.0, max(wide - 1.5, 0.6), 14.0),), f"{colours.get(name, 'cross')}-edge"))
        x += wide
    bar = Piece(room, 14, tuple(cells))
    rows = []
    for name, value in parts.items():
        left = row([swatch(colours.get(name, "cross"), 10), label(name.replace("_", "-"), BODY)], 7)
        right = label(f"{words.count(value)}   {100 * value / total:.1f} %", BODY, colour="muted")
        rows.append(spread([left, right], room))
    return column([bar, blank(0, 2), *rows], 3)


def _colours(arch: Architecture) -> dict[str, str]:
    """Mixers and feed-forwards in the colour of those that weigh most."""
    weights: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for block in words.kinds(arch.blocks)[0]:
        for op in block.ops():
            weights[isinstance(op, FeedForward)][family(op)] += op.parameters(arch.width)
    mixer, rest = (max(found, key=lambda hue: found[hue], default="dense") for found in weights)
    plain = {"embedding": "ends", "norms": "norm", "head": "other", "other": "accent"}
    return plain | {"mixers": mixer, "feed_forwards": rest}


def states(arch: Architecture, room: float) -> Piece:
    """What a sequence leaves behind as it grows."""
    sizes = [arch.state_bytes(context=context) for context in CONTEXTS]
    if not any(sizes):
        return label("none: every pass reads all tokens", BODY)
    rows = []
    left, right = 42.0, 72.0
    for context, nbytes in zip(CONTEXTS, sizes, strict=True):
        bar = Piece(
            room - left - right,
            12,
            (Box(0, 0, max(2.0, (room - left - right) * nbytes / max(sizes)), 12, "ends-edge", None, 2),),
        )
        name, value = label(words.tokens(context), BODY, colour="muted"), label(words.size(nbytes), BODY)
        rows.append(row([sized(name, left), bar, sized(value, right, align="end")]))
    return column(rows, 5)


def published(facts: dict[str, Any] | None) -> list[str]:
    """What the catalog knows beside the value, as short sentences."""
    if not facts:
        return []
    said = []
    if facts.get("released"):
        said.append(f"released {facts['released']}")
    if facts.get("licence"):
        said.append(str(facts["licence"]))
    if facts.get("repository"):
        said.append(str(facts["repository"]))
    return said
