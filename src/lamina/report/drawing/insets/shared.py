"""A transformer that several places share: what is one for all, and what each place has of its own."""

from __future__ import annotations

import itertools

from lamina.arch import SharedTransformer
from lamina.report import words
from lamina.report.drawing.hues import family
from lamina.report.drawing.insets.base import Inset, insets, node
from lamina.report.drawing.parts import SMALL
from lamina.report.drawing.scene import label
from lamina.report.drawing.sketch import Sketch


@insets.register
def _(op: SharedTransformer, width: float) -> tuple[Inset, ...]:
    s, wide = Sketch(), min(width - 150, 190.0)
    middle, y = wide / 2 + 4, 26.0
    ranks = {"attention": op.attention_rank, "feed-forward": op.feed_forward_rank}
    steps = [
        ("projection", "accent", "of each place alone"),
        (words.name_of(op.feed_forward), "dense", _own(ranks["feed-forward"])),
        (words.norm(op.norm), "norm", ""),
        (words.name_of(op.attention), family(op.attention), _own(ranks["attention"])),
        (words.norm(op.norm), "norm", ""),
        ("[stream ; embedding]", "ends", "twice the width"),
    ]
    s.put_middle(label("added to what the mixer reads", SMALL, True), middle, 0)
    places = []
    for text, hue, beside in steps:
        places.append(s.put_middle(node(text, hue, wide), middle, y))
        if beside:
            s.put(label(beside, SMALL, colour="muted"), places[-1].right + 8, places[-1].centre - 8)
        y = places[-1].below + 16
    s.arrow((middle, places[0].y), (middle, 18))
    for upper, lower in itertools.pairwise(places):
        s.arrow((middle, lower.y), (middle, upper.below))
    note = "Several layers share all but what is said to be of each place alone; each keeps keys and values of its own."
    return (Inset("A transformer that layers share", s.piece(width), note),)


def _own(rank: int | None) -> str:
    return f"+ rank {rank} of its own" if rank else ""
