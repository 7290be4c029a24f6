"""The full sheet of one architecture: title, numbers, all layers, blocks, mechanisms, costs."""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture
from lamina.arch.base import Node
from lamina.report import words
from lamina.report.drawing.block import block_piece, spans
from lamina.report.drawing.encoder import encoder_piece
from lamina.report.drawing.facts import published, states, tiles, weights
from lamina.report.drawing.grid import grid
from lamina.report.drawing.insets import Inset, insets
from lamina.report.drawing.insets.attention import masks
from lamina.report.drawing.overview import overview
from lamina.report.drawing.parts import BODY, GAP, MARGIN, PADDING, PAGE, SMALL, TITLE, Make, card, columns
from lamina.report.drawing.pattern import Kind, Pattern, pattern, places
from lamina.report.drawing.scene import Cells, Piece, column, label, padded, paragraph, spread
from lamina.report.drawing.strip import legend, strip

COLUMNS = 3


def sheet_scene(arch: Architecture, facts: dict[str, Any] | None = None, page: float = PAGE) -> Piece:
    """Everything that there is to see of an architecture."""
    room, found = page - 2 * MARGIN, pattern(arch.blocks)
    layers = column([legend(arch, found, room), strip(found, room)], 10)
    width = columns(COLUMNS, room)
    fixed = [(_model(arch, found, width), 1), *((_block(arch, found, k, width), spans(k.block)) for k in found.kinds)]
    inner = width - 2 * PADDING
    loose = [_card("Parameters", weights(arch, inner), width)]
    loose.append(_card("State of one sequence", states(arch, inner), width, "in bfloat16, after so many tokens"))
    for encoder in arch.encoders:
        loose.append(_card(f"{encoder.modality.capitalize()} encoder", encoder_piece(encoder, inner), width))
    loose += [_card(inset.title, inset.body(inner), width) for inset in insets_of(arch, found, inner)]
    bands = [heading(arch, facts, room), tiles(arch, room), layers, grid(fixed, loose, room, COLUMNS)]
    return padded(column([*bands, footer(arch, room)], 26), MARGIN, 40, 26)


def heading(arch: Architecture, facts: dict[str, Any] | None, room: float) -> Piece:
    """The name, what kind of thing it is, and what its publisher says."""
    side = column([label(text, BODY, colour="muted") for text in published(facts)], 2, "end")
    left = room - side.width - 40
    title = [paragraph(arch.name or arch.family, left, TITLE, True, "ink"), paragraph(words.attention(arch), left, 14)]
    return column([spread([column(title, 2), side], room, "end"), rule(room)], 14)


def footer(arch: Architecture, room: float) -> Piece:
    family = f"family {arch.family}; drawn from the value by Lamina"
    return label(family, SMALL, colour="muted")


def rule(room: float) -> Piece:
    return Piece(room, 1, (Cells(((0.0, 0.0, room, 1.0),), "line"),))


def _card(title: str, body: Piece, width: float, note: str = "") -> Make:
    return lambda height: card(title, body, width, note, height)


def _model(arch: Architecture, found: Pattern, width: float) -> Make:
    return _card("The model", overview(arch, found, width - 2 * PADDING), width)


def _block(arch: Architecture, found: Pattern, kind: Kind, width: float) -> Make:
    title = kind.label if len(found.kinds) > 1 else "the block"
    wide = width * spans(kind.block) + GAP * (spans(kind.block) - 1)
    streams = getattr(arch.stream, "count", 1)
    body = block_piece(kind.variants, wide - 2 * PADDING, streams)
    return _card(title[:1].upper() + title[1:], body, wide, places(kind, len(found.layers)))


def insets_of(arch: Architecture, found: Pattern, width: float) -> list[Inset]:
    """The mechanisms to show, each once, in the order in which they are met."""
    parts: list[Node | None] = [arch.stream, arch.recursion, arch.embedding.per_layer, arch.embedding.ngrams]
    for kind in found.kinds:
        parts += [part for branch in kind.block.branches for part in (branch.aside, branch.op, branch.residual)]
    shown = [*masks(arch, width), *(inset for part in parts if part for inset in insets(part, width))]
    return list({inset.title: inset for inset in reversed(shown)}.values())[::-1]
