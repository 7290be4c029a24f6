"""Differential attention: two maps of the same tokens, one subtracted from the other."""

from __future__ import annotations

import itertools

from lamina.arch import DifferentialAttention
from lamina.report import words
from lamina.report.drawing.hues import family
from lamina.report.drawing.insets.base import Inset, insets, node
from lamina.report.drawing.parts import SMALL
from lamina.report.drawing.scene import paragraph
from lamina.report.drawing.sketch import Sketch


@insets.register
def _(op: DifferentialAttention, width: float) -> tuple[Inset, ...]:
    return (path(op, width),)


def path(op: DifferentialAttention, width: float) -> Inset:
    """The two maps, from their queries and keys to the difference and its norm."""
    s, colour, gap = Sketch(), family(op), 10.0
    each = (width - 2 * gap) / 3
    columns = [i * (each + gap) for i in range(3)]
    above = [node("output projection", "norm", 150)]
    above.append(node(f"{words.norm(op.norm)} of each head, × (1 − λ₀)", "norm", 210))
    above.append(node("(A₁ − λ A₂) v", "accent", 150, bold=True))
    places, y = [], 0.0
    for piece in above:
        places.append(s.put_middle(piece, width / 2, y))
        y = places[-1].below + 14
    for upper, lower in itertools.pairwise(places):
        s.arrow((width / 2, lower.y), (width / 2, upper.below))
    top, y = places[-1], y + 8
    maps = [s.put(node([f"A{n}", f"softmax(q{n}·k{n})"], colour, each), columns[i], y) for i, n in enumerate("₁₂")]
    value = s.put(node(["v", f"{op.kv_heads} × {op.values}"], colour, each), columns[2], y)
    y = max(place.below for place in (*maps, value)) + 18
    for place in (*maps, value):
        s.up(place, top)
    turned = ["rotate"] if op.rotary else []
    for i, n in enumerate("₁₂"):
        made = [f"q{n} {op.heads} × {op.head_dim}", f"k{n} {op.kv_heads} × {op.head_dim}", *turned]
        lower = s.put(node(made, colour, each), columns[i], y)
        s.arrow((lower.middle, lower.y), (lower.middle, maps[i].below))
    begins = "λ₀ larger in deeper blocks" if op.initial is None else f"λ₀ = {op.initial:g}"
    s.put(paragraph(f"λ: learned, one for all heads; {begins}", each, SMALL), columns[2], y)
    note = "What both maps give every token alike cancels, so that less weight is left on tokens that do not matter. "
    note += (
        f"{op.heads} heads, {op.kv_heads} of keys and values: {2 * op.kv_heads * op.values:,} numbers are kept a token."
    )
    return Inset("Differential attention", s.piece(width), note)
