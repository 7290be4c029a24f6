"""One block: its residual stream, and the branches that leave it and come back."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from lamina.arch import Block, Branch, CrossAttention, Op, Parallel
from lamina.arch.residual import AffineResidual, GatedResidual, LaurelResidual, Residual, ScaledResidual
from lamina.report import words
from lamina.report.drawing.hues import family
from lamina.report.drawing.parts import named_box, pill
from lamina.report.drawing.pattern import merged
from lamina.report.drawing.scene import Box, Line, Mark, Piece, Point, column, sized
from lamina.report.drawing.sketch import Place, Sketch

RAIL, LEFT = 12.0, 40.0  # where the stream runs, and where what branches off it begins
JOIN, FORK, STEP = 24.0, 22.0, 14.0
RADIUS, WIDEST, NARROW = 8.5, 330.0, 130.0
SHORTCUT = 16.0  # beside the branches, where an output goes to a later one

Marked = frozenset[str]
Exit = tuple[float, float, int]
"""Where an output leaves that is added later, and how many branches later."""


class Drawn(NamedTuple):
    """A branch: its piece, where it meets the stream, and outputs that land elsewhere."""

    piece: Piece
    joint: Point
    middle: float
    exits: tuple[Exit, ...]


def spans(block: Block) -> int:
    """How many columns a block needs: two where parts stand beside each other."""
    return 2 if any(isinstance(branch.op, Parallel) for branch in block.branches) else 1


def block_piece(variants: Sequence[Block], width: float, streams: int = 1, marked: Marked = frozenset()) -> Piece:
    """A block from below upwards, in this width; of several variants what differs in numbers is a range."""
    block = variants[0]
    later = any(isinstance(branch.op, Parallel) and any(branch.op.lands) for branch in block.branches)
    room = width - (SHORTCUT if later else 0)
    branches = []
    for i in range(len(block.branches)):
        branches.append(branch_piece([variant.branches[i] for variant in variants], room, marked))
    top, bottom = 16.0 + (22 if block.scaled else 0), 8.0
    body = column([branch.piece for branch in branches[::-1]])
    height = top + body.height + bottom
    rails = [RAIL + 4 * (i - (streams - 1) / 2) for i in range(streams)]
    rail = [Line(((x, height), (x, 0)), "rail", 2.5 if streams == 1 else 1.5, streams == 1) for x in rails]
    ways = _landings(branches, top, room + SHORTCUT / 2) if later else []
    parts: list[tuple[float, float, Piece]] = [(0.0, top, body)]
    if block.scaled:
        parts.append((0.0, 12.0, pill("times a stored number", "accent")))
    return Piece(width, height, (*rail, *ways), tuple(parts))


def _landings(branches: Sequence[Drawn], top: float, x: float) -> list[Line]:
    """From each output that is added later to where it is added."""
    tops, y = [0.0] * len(branches), top
    for i in reversed(range(len(branches))):
        tops[i] = y
        y += branches[i].piece.height
    lines = []
    for i, branch in enumerate(branches):
        for right, height, later in branch.exits:
            target = branches[i + later]
            end = tops[i + later] + target.joint[1]
            begin = (right, tops[i] + height)
            lines.append(Line((begin, (x, begin[1]), (x, end), (target.middle + 2, end)), "experts-edge", 2, True))
    return lines


def branch_piece(variants: Sequence[Branch], width: float, marked: Marked = frozenset()) -> Drawn:
    """A branch: from the stream below through its norms and its op, back into the stream above."""
    branch, room = variants[0], width - LEFT
    op, exits = _op([variant.op for variant in variants], room, marked)
    steps = [*_after(branch), op, *_before(branch, room, marked)]
    sketch, y, middle = Sketch(), JOIN, LEFT + room / 2
    for text in _over(branch):
        y += sketch.put(pill(text, "norm"), 0, y - JOIN).height + 6
    joint, begin = (RAIL, y - JOIN / 2), 0.0
    places = []
    for step in steps:
        places.append(sketch.put_middle(step, middle, y))
        begin = y if step is op else begin
        y += step.height + STEP
    lowest = _memory(sketch, branch, places[steps.index(op)].right, places[steps.index(op)])
    fork = max(y - STEP, lowest) + FORK - 6
    sketch.arrow((RAIL, fork), (middle, fork), (middle, places[-1].below))
    for upper, lower in itertools.pairwise(places):
        sketch.arrow((middle, lower.y), (middle, upper.below))
    sketch.arrow((middle, places[0].y), (middle, joint[1]), (RAIL + RADIUS, joint[1]))
    piece = sketch.piece(width, fork + 6).with_over(*_sum(joint))
    moved = tuple((LEFT + right, begin + height, later) for right, height, later in exits)
    return Drawn(piece, joint, middle, moved)


def _sum(at: Point) -> tuple[Mark, ...]:
    """A plus in a circle, where a branch comes back."""
    x, y = at
    return (
        Box(x - RADIUS, y - RADIUS, 2 * RADIUS, 2 * RADIUS, "panel", "rail", RADIUS, 1.5),
        Line(((x - 4, y), (x + 4, y)), "rail", 1.5),
        Line(((x, y - 4), (x, y + 4)), "rail", 1.5),
    )


def _over(branch: Branch) -> list[str]:
    """What happens to the sum, from above."""
    said = [f"{words.norm(branch.joined)} of the sum"] if branch.joined else []
    return said + ([_residual(branch.residual)] if branch.residual else [])


def _residual(value: Residual) -> str:
    if isinstance(value, ScaledResidual):
        kept = "its normed input" if value.normed else "the stream"
        return f"{kept} times {words.number(value.scale)}"
    if isinstance(value, AffineResidual):
        return "learned bias and scale of both"
    if isinstance(value, LaurelResidual):
        return f"LAuReL of rank {value.rank}"
    if isinstance(value, GatedResidual):
        return "learned gates of both"
    return words.name_of(value)


def _after(branch: Branch) -> list[Piece]:
    """What stands between an op and the stream, from above."""
    scales = [f"times {words.number(branch.multiplier)}"] if branch.multiplier != 1 else []
    scales += ["learned factor" if branch.gate == "factor" else f"learned gate, {branch.gate}"] if branch.gate else []
    scales += ["zero without memory"] if branch.attended_only else []
    pills = [pill(", ".join(scales), "accent")] if scales else []
    pills += [pill(f"short filter of {branch.filter.kernel}", "convolution")] if branch.filter else []
    return [*pills, pill(words.norm(branch.after))] if branch.after else pills


def _before(branch: Branch, room: float, marked: Marked) -> list[Piece]:
    """What stands between the stream and an op, from above."""
    pills = [pill(words.norm(branch.before))] if branch.before else []
    if branch.aside:
        pills += [pill("added for this branch alone", "accent"), _box([branch.aside], min(room, WIDEST), marked)]
    return pills


def _memory(sketch: Sketch, branch: Branch, right: float, op: Place) -> float:
    """What an op reads beside the stream, at its right; how far down it reaches."""
    if not isinstance(branch.op, CrossAttention):
        return op.below
    memory = pill("memory", "cross")
    place = sketch.put(memory, right - memory.width, op.below + STEP)
    sketch.arrow((place.middle, place.y), (place.middle, op.below), stroke="cross-edge")
    return place.below


# -- what a branch computes


def _op(variants: Sequence[Op], room: float, marked: Marked) -> tuple[Piece, tuple[Exit, ...]]:
    op = variants[0]
    if isinstance(op, Parallel):
        return _parallel(op, room, marked)
    return _box(variants, min(room, WIDEST), marked), ()


def _box(variants: Sequence[Op], width: float, marked: Marked = frozenset()) -> Piece:
    """An op by its words; by its name alone where there is no room for more."""
    said = [[words.name_of(op), *words.phrases(op)] for op in variants]
    same = [lines for lines in said if len(lines) == len(said[0])]
    name, *phrases = [merged(texts) for texts in zip(*same, strict=True)]
    return named_box(name, phrases if width > NARROW else (), family(variants[0]), width, marked)


def _parallel(op: Parallel, room: float, marked: Marked) -> tuple[Piece, tuple[Exit, ...]]:
    """Ops beside each other between two buses; one that lands later leaves at the right."""
    gap, count = 14.0, len(op.ops)
    order = sorted(range(count), key=lambda i: op.lands[i] if op.lands else 0)
    each = (room - gap * (count - 1)) / count
    boxes = [_box([op.ops[i]], each, marked) for i in order]
    tallest = max(box.height for box in boxes)
    after, before = ([pill(words.norm(n)) if n else None for n in norms] for norms in (op.after, op.before))
    sketch, bus = Sketch(), 12.0
    high = max([0.0, *(p.height + STEP for p in after if p)])
    low = max([0.0, *(p.height + STEP for p in before if p)])
    height, exits = 2 * bus + high + tallest + low, []
    for j, i in enumerate(order):
        x = j * (each + gap) + each / 2
        box = sketch.put_middle(sized(boxes[j], height=tallest, down="middle"), x, bus + high)
        inner = (box.y + (tallest - boxes[j].height) / 2, box.below - (tallest - boxes[j].height) / 2)
        upper = _between(sketch, after[i] if after else None, x, inner[0], up=True)
        lower = _between(sketch, before[i] if before else None, x, inner[1], up=False)
        sketch.arrow((room / 2, height), (room / 2, height - bus / 2), (x, height - bus / 2), (x, lower))
        later = op.lands[i] if op.lands else 0
        if later:
            sketch.line((x, upper), (x, bus / 2), (room, bus / 2), stroke="experts-edge")
            exits.append((room, bus / 2, later))
        else:
            sketch.line((x, upper), (x, bus / 2), (room / 2, bus / 2), (room / 2, 0))
    return sketch.piece(room, height), tuple(exits)


def _between(sketch: Sketch, norm: Piece | None, x: float, edge: float, up: bool) -> float:
    """A norm above or below an op, if there is one; where the line goes on."""
    if norm is None:
        return edge
    y = edge - STEP - norm.height if up else edge + STEP
    place = sketch.put_middle(norm, x, y)
    if up:
        sketch.arrow((x, edge), (x, place.below))
        return place.y
    sketch.arrow((x, place.y), (x, edge))
    return place.below
