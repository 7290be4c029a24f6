"""Several architectures in one drawing: two side by side, and a lineage with what changed at each step."""

from __future__ import annotations

from collections.abc import Sequence

from lamina.arch import Architecture
from lamina.report import words
from lamina.report.differences import Change, described
from lamina.report.drawing.block import block_piece
from lamina.report.drawing.facts import tile
from lamina.report.drawing.hues import feed_forwards
from lamina.report.drawing.overview import stack
from lamina.report.drawing.parts import BODY, GAP, MARGIN, PADDING, PAGE, SMALL, Make, card, columns, fit
from lamina.report.drawing.pattern import Kind, Pattern, pattern, places
from lamina.report.drawing.pattern import described as said_of
from lamina.report.drawing.scene import (
    Box,
    Cells,
    Line,
    Piece,
    blank,
    column,
    label,
    padded,
    paragraph,
    row,
    sized,
    spread,
)
from lamina.report.drawing.strip import legend, small_strip, strip

ACROSS = 4  # steps of a lineage in a row
CHANGES, LONGEST = 10, 110  # that a step lists; characters of one before names alone are said


def compare_scene(left: Architecture, right: Architecture, page: float = PAGE) -> Piece:
    """Two architectures side by side, what is said of one alone marked."""
    room = page - 2 * MARGIN
    width, sides, found = columns(2, room), (left, right), (pattern(left.blocks), pattern(right.blocks))
    told = [{text for kind in f.kinds for variant in kind.variants for text in said_of(variant)} for f in found]
    marked = [frozenset(told[0] - told[1]), frozenset(told[1] - told[0])]
    bands = [_row([_head(arch, f, width) for arch, f in zip(sides, found, strict=True)])]
    bands.append(card("What differs", _changes(described(left, right), room - 2 * PADDING, sides), room))
    bands.append(_level([_model(f, width) for f in found]))
    for i in range(max(len(f.kinds) for f in found)):
        cells = []
        for f, marks in zip(found, marked, strict=True):
            kind = f.kinds[i] if i < len(f.kinds) else None
            cells.append(_block(f, kind, width, marks) if kind else blank(width))
        bands.append(_level(cells))
    note = row([_mark(), label("said of this one alone", SMALL, colour="muted")], 7)
    return padded(column([*bands, note], GAP), MARGIN, 40, 30)


def _mark() -> Piece:
    return Piece(4, 14, (Box(0, 0, 4, 14, "accent-edge", None, 2),))


def _row(pieces: Sequence[Piece]) -> Piece:
    return row(pieces, GAP, "start")


def _level(pieces: Sequence[Make | Piece]) -> Piece:
    """Cards next to each other, all as high as the highest."""
    return row(fit(pieces), GAP, "start")


def _head(arch: Architecture, found: Pattern, width: float) -> Piece:
    """Name, numbers and layers of one side."""
    title = paragraph(arch.name or arch.family, width, 28, True, "ink")
    rule = Piece(width, 1, (Cells(((0.0, 0.0, width, 1.0),), "line"),))
    return column([title, spread(_numbers(arch), width), rule, legend(arch, found, width), strip(found, width)], 12)


def _numbers(arch: Architecture) -> list[Piece]:
    total, active, _ = arch.parameters()
    pairs = [(words.count(total), "parameters")]
    pairs += [(words.count(active), "active")] if active != total else []
    pairs += [(str(len(arch.blocks)), "layers"), (f"{arch.width:,}", "width")]
    if arch.context:
        pairs.append((words.tokens(arch.context), "context"))
    held = arch.state_bytes(context=32768)
    return [tile(value, name, 18) for value, name in [*pairs, (words.size(held) if held else "none", "state at 32k")]]


def _changes(changes: Sequence[Change], room: float, sides: Sequence[Architecture]) -> Piece:
    """A table: the aspect, what is said of the one, what of the other."""
    first = max([70.0, *(label(c.aspect, BODY).width for c in changes)])
    first = min(first, room * 0.26)
    each = (room - first - 2 * 18) / 2

    def line(texts: Sequence[str], bold: bool = False, colour: str = "ink") -> Piece:
        widths = (first, each, each)
        cells = [
            sized(paragraph(text or "none", wide, BODY, bold or i == 0, "muted" if i == 0 else colour), wide)
            for i, (text, wide) in enumerate(zip(texts, widths, strict=True))
        ]
        return row(cells, 18, "start")

    if not changes:
        return label("nothing", BODY, colour="muted")
    lines = [line(["aspect", *(arch.name or arch.family for arch in sides)], True)]
    for change in changes:
        lines.append(Piece(room, 1, (Cells(((0.0, 0.0, room, 1.0),), "line"),)))
        lines.append(line(change))
    return column(lines, 5)


def _model(found: Pattern, width: float) -> Make:
    return lambda height: card("The pattern", stack(found, width - 2 * PADDING), width, height=height)


def _block(found: Pattern, kind: Kind, width: float, marked: frozenset[str]) -> Make:
    title = kind.label if len(found.kinds) > 1 else "the block"
    body = block_piece(kind.variants, width - 2 * PADDING, marked=marked)
    note = places(kind, len(found.layers))
    return lambda height: card(title[:1].upper() + title[1:], body, width, note, height, down="end")


# -- a lineage


def lineage_scene(archs: Sequence[Architecture], page: float = PAGE) -> Piece:
    """Architectures in their order, each with its commonest block and what changed since the one before."""
    room = page - 2 * MARGIN
    across = min(ACROSS, max(2, len(archs)))
    width = columns(across, room, GAP + 6)
    steps = [_step(arch, archs[i - 1] if i else None, width) for i, arch in enumerate(archs)]
    rows = []
    for start in range(0, len(steps), across):
        cells = steps[start : start + across]
        tops = fit([lambda height, top=top: sized(top, height=height) for top, _ in cells])
        bodies = fit([body for _, body in cells])
        line = [column([top, body], 12) for top, body in zip(tops, bodies, strict=True)]
        rows.append(_joined(line))
    title = paragraph(" → ".join(arch.name or arch.family for arch in archs), room, 22, True, "ink")
    return padded(column([title, *rows], 30), MARGIN, 40, 40)


def _joined(pieces: Sequence[Piece]) -> Piece:
    """Steps in a row with arrows between them."""
    line = row(pieces, GAP + 6, "start")
    ends = [(x + piece.width, x + piece.width + GAP + 6) for x, _, piece in line.parts[:-1]]
    return line.with_over(*(Line(((a + 4, 16.0), (b - 4, 16.0)), "accent-edge", 2, True) for a, b in ends))


def _step(arch: Architecture, before: Architecture | None, width: float) -> tuple[Piece, Make]:
    """The name, numbers and layers of a step, and the card of its commonest block under what changed."""
    found = pattern(arch.blocks)
    kind = max(found.kinds, key=lambda kind: len(kind.places))
    total, active, _ = arch.parameters()
    numbers = f"{words.count(total)} parameters" + (f", {words.count(active)} active" if active != total else "")
    changes = described(before, arch) if before else []
    news = (
        column([_news(change, before, arch, width) for change in _weightiest(changes)], 8)
        if before
        else _origin(arch, width)
    )
    parts = [
        paragraph(arch.name or arch.family, width, 17, True, "ink"),
        paragraph(f"{numbers}, {len(arch.blocks)} layers", width, BODY),
        small_strip(found, width),
        blank(0, 2),
        label("what changed" if before else "where it starts", SMALL, True, "accent-deep"),
        news,
    ]
    marks = _new_words(kind, before)
    room = width - 24
    title = kind.label if len(found.kinds) > 1 else "the block"
    body = block_piece(kind.variants, room, marked=marks)
    note = places(kind, len(found.layers))
    return column(parts, 5), lambda height: card(title[:1].upper() + title[1:], body, width, note, height, 12, "end")


def _new_words(kind: Kind, before: Architecture | None) -> frozenset[str]:
    """What is said of a block and was not said of the one before."""
    if before is None:
        return frozenset()
    old = {text for k in pattern(before.blocks).kinds for block in k.variants for text in said_of(block)}
    return frozenset(said_of(kind.block)) - old


def _weightiest(changes: Sequence[Change]) -> list[Change]:
    """Sizes are on the page already; what is left, as far as there is room."""
    plain = ("layers", "width", "vocabulary", "context", "norm eps", "final norm eps")
    left = [change for change in changes if change.aspect not in plain]
    return left[:CHANGES]


def _news(change: Change, before: Architecture, arch: Architecture, width: float) -> Piece:
    """An aspect, what it was, and what it is; names alone where another mechanism stands there."""
    old, new = change.left or "none", change.right or "none"
    if len(old) + len(new) > LONGEST:
        old, new = _names(change.aspect, before, old), _names(change.aspect, arch, new)
    lines = [label(change.aspect, SMALL, colour="muted"), paragraph(f"{old} → {new}", width - 12, BODY, colour="ink")]
    piece = row([blank(12), column(lines, 0)])
    return piece.with_under(Box(0, 1, 3, piece.height - 2, "accent-edge", None, 1.5))


def _names(aspect: str, arch: Architecture, said: str) -> str:
    """The mixers or the feed-forwards of an architecture by name."""
    if aspect in ("mixer", "attention"):
        return words.attention(arch)
    if aspect == "feed-forward":
        return " / ".join(dict.fromkeys(words.name_of(op) for block in arch.blocks for op in feed_forwards(block)))
    return ", ".join(said.split(", ")[:2])


def _origin(arch: Architecture, width: float) -> Piece:
    said = [words.attention(arch), *said_of(arch.blocks[0])]
    text = "; ".join(dict.fromkeys(t for t in said if " " in t and "_" not in t))
    return paragraph(text, width, BODY, colour="ink")
