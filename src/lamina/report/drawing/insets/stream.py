"""The stream where it is more than a sum: several streams, stacks applied again, inputs for every block."""

from __future__ import annotations

from lamina.arch import Recursion
from lamina.arch.ngrams import NgramTables
from lamina.arch.per_layer import PerLayerInputs
from lamina.arch.residual import LaurelResidual
from lamina.arch.streams import AltUp, AttentionResiduals, GatedStreams, HyperConnections
from lamina.report.drawing.insets.base import Inset, insets, node
from lamina.report.drawing.parts import SMALL
from lamina.report.drawing.scene import Box, Dots, Line, Piece, label
from lamina.report.drawing.sketch import Sketch


@insets.register
def _(part: HyperConnections, width: float) -> tuple[Inset, ...]:
    note = (
        f"{part.count} streams instead of one. What is read, written and mixed is made from the streams; "
        f"the mixture is doubly stochastic after {part.iterations} rounds."
    )
    return (Inset("Hyper-connections", _streams(part.count, width, f"mix {part.count} × {part.count}"), note),)


@insets.register
def _(part: GatedStreams, width: float) -> tuple[Inset, ...]:
    note = (
        f"{part.count} streams instead of one. A branch reads the mean of gated streams (a bottleneck of "
        f"{part.rank} makes the gates) and writes to every one, as much as each asks for."
    )
    if part.memory:
        blocks = ", ".join(map(str, part.memory.blocks))
        note += f" Before blocks {blocks} a memory of the last {part.memory.longest} tokens is added."
    return (Inset("Gated streams", _streams(part.count, width, ""), note),)


def _streams(count: int, width: float, mix: str) -> Piece:
    """Several streams, a branch that reads a mixture of them and writes to all."""
    s, gap, left, high = Sketch(), 26.0, 20.0, 178.0
    xs = [left + i * gap for i in range(count)]
    for x in xs:
        s.mark(Line(((x, high), (x, 0)), "rail", 2, True))
    wide, right = (count - 1) * gap + 30, left + count * gap + 14
    if mix:
        s.put(node(mix, "ends", wide), left - 15, 72)
    branch = s.put(node("branch", "full", 110), width - 120, 78)
    read, write = high - 26, 30.0
    s.arrow((xs[0], read), (branch.middle, read), (branch.middle, branch.below))
    s.arrow((branch.middle, branch.y), (branch.middle, write), (xs[-1] + 6, write))
    s.line((xs[0], write), (xs[-1], write))
    s.mark(Dots(tuple((x, read) for x in xs), 3.4, "rail"), Dots(tuple((x, write) for x in xs), 3.4, "accent-edge"))
    s.put(label("read a mixture", SMALL, colour="muted"), right, read - 20)
    s.put(label("write to every one", SMALL, colour="muted"), right, write - 20)
    return s.piece(width)


@insets.register
def _(part: AltUp, width: float) -> tuple[Inset, ...]:
    s, n = Sketch(), part.count
    gap, left, high = 26.0, 20.0, 190.0
    xs = [left + i * gap for i in range(n)]
    for i, x in enumerate(xs):
        s.mark(
            Line(
                ((x, high), (x, 0)),
                "accent-edge" if i == part.active else "rail",
                2.5 if i == part.active else 1.5,
                True,
            )
        )
    wide = (n - 1) * gap + 30
    first = s.put(node("predict", "ends", wide), left - 15, 132)
    s.put(node("correct", "ends", wide), left - 15, 36)
    block = s.put(node("block", "full", 110), width - 130, 84)
    s.arrow((first.right, first.centre), (block.middle, first.centre), (block.middle, block.below))
    s.arrow((block.middle, block.y), (block.middle, 48), (left - 15 + wide, 48))
    note = (
        f"{n} streams, of which a block computes one (marked); the others follow by what it was predicted "
        "to give and what it gave."
    )
    return (Inset("AltUp", s.piece(width), note),)


@insets.register
def _(part: AttentionResiduals, width: float) -> tuple[Inset, ...]:
    s = Sketch()
    names = ["embedding", f"blocks 0–{part.blocks - 1}", f"blocks {part.blocks}–{2 * part.blocks - 1}", "since then"]
    y = 150.0
    places = []
    for name in names:
        places.append(s.put(node(name, "ends", 130), 0, y))
        y -= 42
    reader = s.put(node(["weighted mean,", "softmax of scores"], "accent", 120), width - 125, 66)
    branch = s.put_middle(node("branch", "full", 100), reader.middle, 10)
    for place in places:
        s.line((place.right, place.centre), (reader.x - 18, place.centre), (reader.x - 18, reader.centre))
    s.arrow((reader.x - 18, reader.centre), (reader.x, reader.centre))
    s.arrow((reader.middle, reader.y), (branch.middle, branch.below))
    note = f"A branch reads a mean of earlier sums, each of {part.blocks} blocks, instead of their total."
    return (Inset("Attention over depth", s.piece(width), note),)


@insets.register
def _(part: Recursion, width: float) -> tuple[Inset, ...]:
    s = Sketch()
    same = part.low == part.high
    spans = [f"blocks {x.start}–{x.stop - 1}" for x in (part.high, part.low)]
    wide = width - 110
    high = s.put_middle(
        node(["high ← H(high + low)", "the same stack" if same else spans[0]], "full", wide), width / 2, 8
    )
    start = part.enters == "start"
    low = s.put_middle(
        node([f"low ← L(low + high{'' if start else ' + input'})", spans[1]], "scan", wide), width / 2, high.below + 30
    )
    s.arrow((low.middle, low.y), (high.middle, high.below))
    x = s.put_middle(
        label("input, as the first high latent" if start else "input", SMALL, True), width / 2, low.below + 28
    )
    s.arrow((x.middle, x.y), (low.middle, low.below))
    for place, times, stroke in ((low, part.low_cycles, "scan-edge"), (high, part.high_cycles, "full-edge")):
        far = place.right + 24
        s.arrow(
            (place.right, place.centre + 10),
            (far, place.centre + 10),
            (far, place.centre - 10),
            (place.right, place.centre - 10),
            stroke=stroke,
        )
        s.put(label(f"× {times}", SMALL, True), far + 5, place.centre - 8)
    s.arrow((high.x, high.centre), (high.x - 26, high.centre), (high.x - 26, low.centre), (low.x, low.centre))
    total = part.high_cycles * (part.low_cycles + 1)
    note = f"An outer step is {part.high_cycles} × ({part.low_cycles} low + 1 high) = {total} passes" + (
        "; a head decides whether to stop." if part.halting else "."
    )
    return (Inset("Recursion", s.piece(width), note),)


@insets.register
def _(part: PerLayerInputs, width: float) -> tuple[Inset, ...]:
    s = Sketch()
    blocks = [
        s.put(node(f"block {i}", "full", 74), width - 76, 96 - 40 * j) for j, i in enumerate((0, 1, part.blocks - 1))
    ]
    table = s.put(node([f"{part.vocab:,} rows", f"{part.blocks} × {part.width}"], "ends", 110), 0, 8)
    made = s.put(node(["projection of", "the embedding"], "ends", 110), 0, 84)
    x = 110 + (width - 76 - 110) / 2
    for place in (table, made):
        s.line((place.right, place.centre), (x - 14, place.centre), (x - 14, 68), (x, 68))
    for block in blocks:
        s.arrow((x, 68), (x + 14, 68), (x + 14, block.centre), (block.x, block.centre))
    note = (
        f"Each block gets {part.width} numbers of its own of every token, from a table and from the "
        "embedding; the table can stay in slow memory."
    )
    return (Inset("Per-layer inputs", s.piece(width), note),)


@insets.register
def _(part: LaurelResidual, width: float) -> tuple[Inset, ...]:
    s = Sketch()
    total = s.put_middle(node("sum / sqrt(2)", "norm", 110), width / 2, 0)
    each = (width - 20) / 3
    texts = ("x, the stream", "op", f"z + norm of a map of z through {part.rank}")
    places = [
        s.put(node(text, family, each), i * (each + 10), total.below + 30)
        for i, (text, family) in enumerate(zip(texts, ("ends", "full", "accent"), strict=True))
    ]
    for place in places:
        s.arrow(
            (place.middle, place.y),
            (place.middle, total.below + 14),
            (total.middle, total.below + 14),
            (total.middle, total.below),
        )
    return (Inset("LAuReL", s.piece(width), "z is what the op reads: the stream after its norm."),)


@insets.register
def _(part: NgramTables, width: float) -> tuple[Inset, ...]:
    s, count, pitch = Sketch(), 7, 34.0
    lengths = [1, *range(2, part.longest + 1)]
    total = s.put_middle(node("mean", "norm", 80), width / 2, 0)
    each = (width - 10 * (len(lengths) - 1)) / len(lengths)
    y, left = total.below + 30, (width - count * pitch) / 2
    for i, length in enumerate(lengths):
        many = f"{part.tables} tables" if length > 1 else "the table"
        place = s.put(
            node([f"last {length}", many] if length > 1 else ["token", many], "ends", each), i * (each + 10), y
        )
        s.arrow((place.middle, place.y), (place.middle, y - 14), (total.middle, y - 14), (total.middle, total.below))
    below = y + 34 + 16
    for i, length in enumerate(lengths):
        right, middle = left + count * pitch - 6, i * (each + 10) + each / 2
        start, line = right - length * pitch + 6, below + 12.0 * i
        s.mark(Line(((start, line), (right, line)), "accent-edge", 3, radius=0))
        end = min(max(middle, start), right)  # the nearest place of the bar
        s.line((middle, y + 34), (middle, line), (end, line))
    for i in range(count):
        s.mark(Box(left + i * pitch, below + 12 * len(lengths), pitch - 6, 16, "norm-soft", "norm-edge", 4))
    note = (
        f"Vectors of the last 2 to {part.longest} tokens together, found by hashes, are averaged with the token's own."
    )
    return (Inset("Embeddings of n-grams", s.piece(width), note),)
