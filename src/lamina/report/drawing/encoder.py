"""An encoder: from what it reads, through steps and blocks, to what the decoder reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lamina.arch import Block
from lamina.arch.base import Node
from lamina.arch.encoder import Encoder
from lamina.report import words
from lamina.report.drawing.hues import hues
from lamina.report.drawing.insets.base import node
from lamina.report.drawing.overview import stack
from lamina.report.drawing.parts import BODY, named_box, pill
from lamina.report.drawing.pattern import pattern
from lamina.report.drawing.scene import Piece, label
from lamina.report.drawing.sketch import Sketch

STEP = 13.0
FUSIONS = {"stream": "into the stream, at placeholder tokens", "cross_attention": "the memory of cross-attention"}


def encoder_piece(encoder: Encoder, width: float) -> Piece:
    """What an encoder passes, from below upwards."""
    room, sketch = width - 40, Sketch()
    steps = [label(words.name_of(encoder.input), BODY, colour="muted"), *_steps(encoder.stem, room)]
    if encoder.positions:
        steps.append(pill(f"add {words.name_of(encoder.positions)}"))
    steps += [pill("class token")] if encoder.class_token else []
    steps += [pill(words.norm(encoder.before))] if encoder.before else []
    if encoder.blocks:
        steps += _blocks(encoder.blocks, width)
    steps += [pill(words.norm(encoder.norm))] if encoder.norm else []
    if encoder.taps:
        steps.append(pill(f"outputs of blocks {', '.join(map(str, sorted(encoder.taps)))}", "accent"))
    steps += _steps(encoder.connector, room)
    steps.append(label(FUSIONS[encoder.fusion], BODY, colour="muted"))
    y, above = 0.0, None
    for step in reversed(steps):
        place = sketch.put_middle(step, width / 2, y)
        if above:
            sketch.arrow((width / 2, place.y - 1), (width / 2, above.below + 1))
        above, y = place, place.below + STEP
    return sketch.piece(width)


def _steps(steps: Sequence[Node], room: float) -> Iterator[Piece]:
    """Steps by their words, equal neighbours once."""
    for times, run in words.folds(words.name_of(step) for step in steps):
        for many, text in run * times:
            yield node(f"{many} × ({text})" if many > 1 else text, "norm", room, BODY)


def _blocks(blocks: Sequence[Block], width: float) -> Iterator[Piece]:
    """The blocks by their words; where there are several kinds, their pattern too."""
    found = pattern(blocks)
    if len(found.kinds) > 1:
        yield stack(found, width)
        return
    said = [words.name_of(op) for op in blocks[0].ops()]
    norms = dict.fromkeys(words.norm(norm) for branch in blocks[0].branches for norm in branch.norms.values())
    mixers, feed_forwards = hues(blocks[0])
    yield named_box(f"{len(blocks)} × block", [*said, *norms], (mixers or feed_forwards)[0], width - 40)
