"""The fact sheet: large numbers in a band, and a card of what the parts weigh and a sequence leaves behind."""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture
from lamina.report import words
from lamina.report.drawing.parts import BODY, swatch
from lamina.report.drawing.scene import Box, Cells, Piece, blank, column, label, row, sized, spread
from lamina.report.sheet import CONTEXTS, parameters_by_part

COLOURS = {
    "embedding": "ends",
    "mixers": "full",
    "feed_forwards": "dense",
    "norms": "norm",
    "head": "other",
    "other": "accent",
}


def tiles(arch: Architecture, width: float) -> Piece:
    """The numbers that one asks for first."""
    total, active, _ = arch.parameters()
    pairs = [(words.count(total), "parameters")]
    if active != total:
        pairs.append((words.count(active), "active a token"))
    pairs += [(str(len(arch.blocks)), "layers"), (f"{arch.width:,}", "width"), (f"{arch.vocab:,}", "vocabulary")]
    if arch.context:
        pairs.append((words.tokens(arch.context), "context"))
    growth = arch.state_bytes(context=CONTEXTS[-1] + 1) - arch.state_bytes(context=CONTEXTS[-1])
    pairs.append((words.size(growth) if growth else "none", "state per new token"))
    pairs.append((words.size(arch.state_bytes(context=32768)) if arch.state_bytes(32768) else "none", "state at 32k"))
    return spread([tile(value, name) for value, name in pairs], width)


def tile(value: str, name: str, size: float = 22) -> Piece:
    return column([label(value, size, True), label(name, BODY, colour="muted")], 1)


def costs(arch: Architecture, room: float) -> Piece:
    """Where the parameters are, and what a sequence leaves behind as it grows."""
    return column([_weights(arch, room), _states(arch, room)], 18)


def _weights(arch: Architecture, room: float) -> Piece:
    parts = {name: value for name, value in parameters_by_part(arch).items() if value > 0}
    total, x, cells = sum(parts.values()), 0.0, []
    for name, value in parts.items():
        wide = room * value / total
        cells.append(Cells(((x, 0.0, max(wide - 1.5, 0.6), 14.0),), f"{COLOURS[name]}-edge"))
        x += wide
    bar = Piece(room, 14, tuple(cells))
    rows = []
    for name, value in parts.items():
        left = row([swatch(COLOURS[name], 10), label(name.replace("_", "-"), BODY)], 7)
        right = label(f"{words.count(value)}   {100 * value / total:.1f} %", BODY, colour="muted")
        rows.append(spread([left, right], room))
    return column([label("parameters", BODY, True), bar, blank(0, 2), *rows], 3)


def _states(arch: Architecture, room: float) -> Piece:
    sizes = [arch.state_bytes(context=context) for context in CONTEXTS]
    if not any(sizes):
        return column([label("state of one sequence", BODY, True), label("none: every pass reads all tokens", BODY)], 3)
    rows = []
    left, right = 42.0, 72.0
    for context, nbytes in zip(CONTEXTS, sizes, strict=True):
        bar = Piece(room - left - right, 12, (Box(0, 0, max(2.0, (room - left - right) * nbytes / max(sizes)), 12, "ends-edge", None, 2),))
        name, value = label(words.tokens(context), BODY, colour="muted"), label(words.size(nbytes), BODY)
        rows.append(row([sized(name, left), bar, sized(value, right, align="end")]))
    return column([label("state of one sequence, bfloat16", BODY, True), *rows], 4)


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

