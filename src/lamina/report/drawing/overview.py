"""The whole model in one column: tokens, embedding, the pattern of blocks, last norm, head."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from lamina.arch import Architecture
from lamina.report import words
from lamina.report.drawing.font import wrapped
from lamina.report.drawing.hues import hues
from lamina.report.drawing.parts import BODY, SMALL, named_box, pill
from lamina.report.drawing.pattern import Pattern
from lamina.report.drawing.scene import Box, Piece, column, framed, label, padded, sized, typeset
from lamina.report.drawing.sketch import Place, Sketch

STEP, LONGEST = 15.0, 16
SIDE = 52.0  # what brackets and loops take beside the blocks


def overview(arch: Architecture, pattern: Pattern, width: float) -> Piece:
    """From below: what goes in, what it passes, what comes out."""
    sketch, room = Sketch(), width - 2 * SIDE
    middle = width / 2
    steps = [label(_gives(arch), BODY, colour="muted"), named_box("Head", _head(arch), "ends", room)]
    steps += [pill(words.norm(arch.norm))] if arch.norm else []
    above = len(steps)
    steps += [
        _stack(arch, pattern, width),
        named_box("Embedding", _embedding(arch), "ends", room),
    ]
    steps.append(label(_reads(arch), BODY, colour="muted"))
    places, y = [], 0.0
    for step in steps:
        places.append(sketch.put_middle(step, middle, y))
        y += step.height + STEP
    for upper, lower in itertools.pairwise(places):
        sketch.arrow((middle, lower.y - 1), (middle, upper.below + 1))
    if arch.head.tied:
        _tie(sketch, places[1], places[-2])
    if arch.loops > 1:
        _loop(sketch, places[above], f"× {arch.loops}", width)
    return sketch.piece(width)


def _tie(sketch: Sketch, head: Place, embedding: Place) -> None:
    """A dashed line between the head and the embedding whose table it uses."""
    x = 9.0
    sketch.line(
        (head.x, head.centre), (x, head.centre), (x, embedding.centre), (embedding.x, embedding.centre), dashed=True
    )


def _loop(sketch: Sketch, over: Place, times: str, width: float) -> None:
    """From what the stack gives back to what it reads."""
    right, middle = width - 4, over.middle
    top, bottom = over.y - STEP / 2, over.below + STEP / 2
    sketch.arrow((middle, top), (right, top), (right, bottom), (middle + 2, bottom), stroke="accent-edge")
    text = label(times, BODY, True, "accent-deep")
    sketch.put(framed(padded(text, 5, 1), "panel", None), right - text.width - 14, over.y - 24)


def _stack(arch: Architecture, pattern: Pattern, width: float) -> Piece:
    """The blocks; where stacks are applied again and again, those with how often."""
    if (r := arch.recursion) is None:
        return stack(pattern, width)
    room = width - 3 * SIDE
    spans = [(r.low, r.low_cycles)] if r.low == r.high else [(r.high, 1), (r.low, r.low_cycles)]
    bars = [_bar(pattern, pattern.layers[span.start], span.stop - span.start, room) for span, _ in spans]
    times = r.high_cycles * (r.low_cycles + 1) if r.low == r.high else r.high_cycles
    if len(bars) > 1:
        bars[1] = _bracketed(bars[1], spans[1][1], room + 1.5 * SIDE)
    inner = column(bars, 12, "middle")
    return _bracketed(inner, times, width)


def stack(pattern: Pattern, width: float) -> Piece:
    """The pattern of blocks from below upwards: runs as bars, repeated ones in brackets."""
    room = width - 2 * SIDE
    folds = words.folds(str(i) for i in pattern.layers)
    if sum(len(runs) for _, runs in folds) > LONGEST:
        bars = [_bar(pattern, i, len(kind.places), room) for i, kind in enumerate(pattern.kinds)]
        bars.append(label("in the order of the strip above", SMALL, colour="muted"))
        return sized(column(bars[::-1], 6, "middle"), width, align="middle")
    groups = []
    for times, runs in folds:
        bars = column([_bar(pattern, int(kind), many, room) for many, kind in runs][::-1], 6)
        groups.append(_bracketed(bars, times, width) if times > 1 else sized(bars, width, align="middle"))
    sketch, y = Sketch(), 0.0
    for group in groups[::-1]:
        place = sketch.put(group, 0, y)
        if y:
            sketch.arrow((width / 2, place.y + 4), (width / 2, place.y - 14))
        y += group.height + 14
    return sketch.piece(width)


def _bracketed(bars: Piece, times: int, width: float) -> Piece:
    """Bars in a frame that says how often they come."""
    text = label(f"× {times}", BODY, True)
    sketch = Sketch()
    place = sketch.put_middle(padded(bars, 0, 8), width / 2, 0)
    sketch.mark(Box(place.x - 10, 0, place.width + 20, place.height, None, "rail", 10, 1, True))
    sketch.put(text, place.right + 14, place.centre - text.height / 2)
    return sketch.piece(width)


def _bar(pattern: Pattern, kind: int, many: int, room: float) -> Piece:
    """A run of one kind: its colours, how many, what they are; a shadow behind if there are several."""
    found = pattern.kinds[kind]
    mixers, feed_forwards = hues(found.block)
    family = (mixers or feed_forwards)[0]
    name = "blocks" if len(pattern.kinds) == 1 else found.label
    said = f"{many} × {name}"
    fits = label(said, BODY, True).width <= room - 20
    lines = wrapped(typeset(said), BODY if fits else SMALL, room - 20, fits)
    text = column([label(line, BODY if fits else SMALL, fits, f"{family}-deep") for line in lines], 0, "middle")
    piece = framed(padded(sized(text, room - 20, align="middle"), 10, 5), f"{family}-soft", f"{family}-edge", 6)
    if many == 1:
        return piece
    back = Box(4, -4, piece.width - 8, piece.height, f"{family}-soft", f"{family}-edge", 6)
    return padded(piece.with_under(back), 0, 4, 0)


def _reads(arch: Architecture) -> str:
    if arch.objective.kind == "masked_diffusion":
        return "tokens, some masked"
    others = [{"image": "images", "audio": "sound"}[encoder.modality] for encoder in arch.encoders]
    return " and ".join(filter(None, (", ".join(["tokens", *others[:-1]]), *others[-1:])))


def _gives(arch: Architecture) -> str:
    said = {
        "causal": "the next token",
        "masked_diffusion": "the masked tokens; attention looks both ways",
        "deep_supervision": "the answer; attention looks both ways",
    }
    return said.get(arch.objective.kind, arch.objective.kind.replace("_", " "))


def _head(arch: Architecture) -> list[str]:
    h = arch.head
    said = ["tied to the embedding" if h.tied else "a matrix of its own"]
    said += [f"times {words.number(h.scale)}"] if h.scale != 1 else []
    said += [f"soft-cap {words.number(h.softcap)}"] if h.softcap else []
    return said + (["bias"] if h.bias else [])


def _embedding(arch: Architecture) -> Sequence[str]:
    e = arch.embedding
    said = [f"{e.vocab:,} tokens × {e.width:,}"]
    said += [f"times {words.number(e.scale)}"] if e.scale != 1 else []
    said += [f"{e.positions.length:,} learned positions"] if e.positions else []
    said += [f"{e.placeholders:,} placeholder rows"] if e.placeholders else []
    said += [f"task tokens before them: {e.task.tokens}"] if e.task else []
    if e.ngrams:
        said.append(f"{e.ngrams.count} tables of n-grams up to {e.ngrams.longest}")
    said += [f"{e.per_layer.width} more numbers for each block"] if e.per_layer else []
    return said + (["learned bias and scale"] if e.affine else [])
