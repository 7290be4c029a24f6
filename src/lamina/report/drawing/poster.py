"""Many architectures on one sheet: of each its name, its numbers, its layers and its pattern."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from lamina.arch import Architecture
from lamina.report import words
from lamina.report.drawing.hues import feed_forwards, hues
from lamina.report.drawing.parts import BODY, GAP, MARGIN, SMALL, Make, card, fit, swatch
from lamina.report.drawing.pattern import pattern
from lamina.report.drawing.scene import Piece, blank, column, flow, label, padded, paragraph, row
from lamina.report.drawing.strip import small_strip

CARD, INSIDE = 258.0, 14.0
NAMES = {
    "full": "attention to all before",
    "window": "attention in windows or chunks",
    "latent": "latent or compressed attention",
    "delta": "linear attention, delta rules",
    "scan": "state space",
    "convolution": "short convolution",
    "cross": "cross-attention",
    "other": "other mixers",
    "dense": "dense feed-forward",
    "experts": "experts",
}


def poster_scene(archs: Sequence[Architecture], title: str = "") -> Piece:
    """A card for each, in rows; as many across as make the sheet half as wide again as it is high."""
    across = min(len(archs), max(4, round(sqrt(1.4 * len(archs)))))
    room = across * CARD + (across - 1) * GAP
    cards = [_card(arch) for arch in archs]
    rows = [row(fit(cards[i : i + across]), GAP, "start") for i in range(0, len(cards), across)]
    used = {f for arch in archs for block in pattern(arch.blocks).kinds for part in hues(block.block) for f in part}
    signs = flow([_sign(f) for f in NAMES if f in used], room, 22)
    heading = title or f"{len(archs)} architectures"
    size = 34.0 if across < 6 else 54.0
    return padded(column([paragraph(heading, room, size, True, "ink"), signs, blank(0, 4), *rows], GAP), MARGIN, 40, 44)


def _sign(family: str) -> Piece:
    return row([swatch(family), label(NAMES[family], BODY)], 7)


def _card(arch: Architecture) -> Make:
    found, room = pattern(arch.blocks), CARD - 2 * INSIDE
    total, active, _ = arch.parameters()
    numbers = words.count(total) + (f", {words.count(active)} active" if active != total else "")
    held = arch.state_bytes(context=32768)
    lines = [
        paragraph(arch.name or arch.family, room, 16, True, "ink"),
        paragraph(f"{numbers}; {len(arch.blocks)} layers of {arch.width:,}", room, BODY),
        blank(0, 4),
        small_strip(found, room),
        blank(0, 4),
        paragraph(words.attention(arch), room, SMALL, colour="ink"),
        paragraph(_feed_forwards(arch), room, SMALL, colour="ink"),
        paragraph(f"state at 32k: {words.size(held) if held else 'none'}", room, SMALL),
    ]
    body = column(lines, 3, width=room)
    return lambda height: card("", body, CARD, "", height, INSIDE, "start")


def _feed_forwards(arch: Architecture) -> str:
    kinds = words.kinds(arch.blocks)[0]
    names = dict.fromkeys(words.name_of(op) for block in kinds for op in feed_forwards(block))
    shown = list(names)[:3]
    return " / ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
