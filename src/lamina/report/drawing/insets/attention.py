"""Softmax attention: which keys a query sees, how heads share keys and values, what queries and keys pass."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from lamina.arch import Architecture, Attention, CrossAttention
from lamina.arch.mixers import RelativeAttention
from lamina.report import words
from lamina.report.drawing.hues import family
from lamina.report.drawing.insets.base import Inset, insets, key, node
from lamina.report.drawing.parts import SMALL
from lamina.report.drawing.scene import Box, Cells, Line, Piece, column, flow, label, row
from lamina.report.drawing.sketch import Sketch

TOKENS = 14  # that a mask is drawn for


# -- masks


def masks(arch: Architecture, width: float) -> tuple[Inset, ...]:
    """Which keys the queries of each kind of attention see; none where all see all that came before."""
    found: dict[str, Piece] = {}
    for op in arch.ops():
        if isinstance(op, Attention | RelativeAttention):
            name, sees = _reach(op, arch.bidirectional)
            found.setdefault(name, _mask(name, sees, family(op)))
    if len(found) < 2 and not arch.bidirectional and all(name == "all before" for name in found):
        return ()
    if not found:
        return ()
    note = "A row is a query, a column a key. Windows and chunks are drawn smaller than they are."
    return (Inset("What a query sees", flow(list(found.values()), width, 12, 12), note),)


def _reach(op: Attention | RelativeAttention, both_ways: bool) -> tuple[str, tuple[tuple[int, int], ...]]:
    """The name of a mask, and of each query the first key that it sees and the one after its last."""
    if both_ways:
        return "all tokens", tuple((0, TOKENS) for _ in range(TOKENS))
    if op.window:
        return f"window {op.window:,}", tuple((max(0, q - 3), q + 1) for q in range(TOKENS))
    if isinstance(op, Attention) and op.chunk:
        return f"chunks of {op.chunk:,}", tuple((q - q % 5, q + 1) for q in range(TOKENS))
    return "all before", tuple((0, q + 1) for q in range(TOKENS))


def _mask(name: str, sees: Sequence[tuple[int, int]], colour: str, pitch: float = 7.0) -> Piece:
    cells: dict[bool, list[tuple[float, float, float, float]]] = {True: [], False: []}
    for q, (first, end) in enumerate(sees):
        for k in range(TOKENS):
            cells[first <= k < end].append((k * pitch, q * pitch, pitch - 1, pitch - 1))
    own = tuple((q * pitch, q * pitch, pitch - 1, pitch - 1) for q in range(TOKENS))
    marks = [Cells(tuple(cells[False]), "line"), Cells(tuple(cells[True]), f"{colour}-edge")]
    grid = Piece(TOKENS * pitch - 1, TOKENS * pitch - 1, (*marks, Cells(own, f"{colour}-deep")))
    return column([grid, label(name, SMALL)], 4, "middle")


# -- heads


def heads(op: Attention | CrossAttention | RelativeAttention, width: float) -> Inset:
    """Query heads above the key/value head that they share."""
    share, colour = op.heads // op.kv_heads, family(op)
    across = min(share, 16)
    side = max(6.0, min(14.0, (width - 40) / op.heads - 2))
    group = _group(share, across, side, colour)
    fit = max(1, int((width + 8) // (group.width + 8)))
    fit = ceil(op.kv_heads / ceil(op.kv_heads / fit))  # as many in each row
    rows = [row([group] * min(fit, op.kv_heads - i), 8) for i in range(0, op.kv_heads, fit)]
    shown = rows[:6]
    picture = column(shown, 8)
    more = op.kv_heads - sum(len(line.parts) for line in shown)
    signs = key([(_sign(colour, 7), "query head"), (_sign(colour, 16, "deep"), "key/value head")])
    pieces = [picture, label(f"and {more} more", SMALL, colour="muted")] if more else [picture]
    values = getattr(op, "values", op.head_dim)
    kept = op.kv_heads * (op.head_dim + values)
    note = f"{op.heads} query heads, {op.kv_heads} key/value heads: keys and values of a token are {kept:,} numbers"
    note += f" instead of {op.heads * (op.head_dim + values):,}." if share > 1 else "."
    return Inset(f"Heads of {words.name_of(op)}", column([*pieces, signs], 10, "middle"), note)


def _group(share: int, across: int, side: float, colour: str) -> Piece:
    pitch = side + 2
    cells = tuple(((i % across) * pitch, (i // across) * pitch, side, side) for i in range(share))
    down = ceil(share / across) * pitch
    width = across * pitch - 2
    return Piece(
        width, down + 5, (Cells(cells, f"{colour}-edge"), Cells(((0.0, down + 0.5, width, 4.5),), f"{colour}-deep"))
    )


def _sign(colour: str, width: float, tone: str = "edge") -> Piece:
    return Piece(width, 7, (Box(0, 0, width, 7 if tone == "edge" else 4.5, f"{colour}-{tone}"),))


# -- the path


def path(op: Attention, width: float) -> Inset:
    """What queries, keys and values pass between the input and the output."""
    colour, gap = family(op), 10.0
    each = (width - 2 * gap) / 3
    sketch, chains = Sketch(), _chains(op)
    deepest = max(len(chain) for chain in chains)
    boxes = [[node(t, colour if t is c[-1] else "norm", each) for t in c] for c in chains]
    rows = [[chain[j - deepest + len(chain)] for chain in boxes if j >= deepest - len(chain)] for j in range(deepest)]
    y = _over(op, sketch, colour, width)
    above = [y] * len(boxes)
    for j, line in enumerate(rows):
        y += 16
        for i, chain in enumerate(boxes):
            if j >= deepest - len(chain):
                place = sketch.put(chain[j - deepest + len(chain)], i * (each + gap), y)
                sketch.arrow((place.middle, place.y), (place.middle, above[i]))
                above[i] = place.below
        y += max(piece.height for piece in line)
    x = sketch.put_middle(label("x", SMALL, True), width / 2, y + 26)
    for i, below in enumerate(above):
        middle = i * (each + gap) + each / 2
        if op.kv_from is None or i == 0:
            sketch.arrow((x.middle, x.y), (x.middle, x.y - 10), (middle, x.y - 10), (middle, below))
    return Inset(f"Path through {'sparse ' if op.blocks else ''}{words.name_of(op)}", sketch.piece(width))


def _chains(op: Attention) -> list[list[str]]:
    """Of queries, keys and values: the steps from above."""
    normed = [words.norm(op.qk_norm.norm).split(" ")[0]] if op.qk_norm else []
    part = f" {op.rotary.dim}/{op.head_dim}" if op.rotary and op.rotary.dim != op.head_dim else ""
    turned = [f"rotate{part}"] if op.rotary else []
    passed = [*normed, *turned] if op.qk_norm and op.qk_norm.after_rotary else [*turned, *normed]
    sharper = ["sharper with length"] if op.temperature else []
    queries = [*sharper, *passed, f"q {op.heads} × {op.head_dim}"]
    if op.kv_from is not None:
        return [queries, [f"k of layer {op.kv_from}"], [f"v of layer {op.kv_from}"]]
    values = [words.norm(op.value_norm).split(" ")[0]] if op.value_norm else []
    values += [f"times {words.number(op.value_scale)}"] if op.value_scale != 1 else []
    last = "v = k" if op.keys_as_values else f"v {op.kv_heads} × {op.values}"
    return [queries, [*passed, f"k {op.kv_heads} × {op.head_dim}"], [*values, last]]


def _over(op: Attention, sketch: Sketch, colour: str, width: float) -> float:
    """What stands above the three: scores and softmax, gate, output. Where the next thing may begin."""
    said = ["softmax(scale q·k) v"]
    if op.softcap:
        said.append(f"scores soft-capped at {words.number(op.softcap)}")
    if op.sinks:
        said.append("a learned sink a head takes a share for no token")
    if op.blocks:
        said.append("over the keys that its indexer chose")
    above = [node("output projection", "norm", 150)]
    if op.gate:
        above.append(
            node(
                f"× {op.gate_activation}(W x), {'each number' if op.gate == 'elementwise' else 'each head'}",
                "accent",
                180,
            )
        )
    if op.output_norm:
        above.append(node(f"{words.norm(op.output_norm)} of each head", "norm", 180))
    above.append(node(said, colour, width))
    y, before = 0.0, None
    for piece in above:
        place = sketch.put_middle(piece, width / 2, y)
        if before:
            sketch.arrow((width / 2, place.y), (width / 2, before.below))
        before, y = place, place.below + 14
    return y - 14


@insets.register
def _(op: Attention, width: float) -> tuple[Inset, ...]:
    return (path(op, width), *(insets(op.blocks, width) if op.blocks else ()), heads(op, width))


@insets.register
def _(op: CrossAttention, width: float) -> tuple[Inset, ...]:
    sketch = Sketch()
    each = (width - 20) / 2
    top = sketch.put_middle(node("softmax(q·k) v: every token sees the whole memory", "cross", width), width / 2, 0)
    q = sketch.put(node(f"q {op.heads} × {op.head_dim}", "full", each), 0, top.below + 18)
    kv = sketch.put(node(f"k, v {op.kv_heads} × {op.head_dim}", "cross", each), each + 20, top.below + 18)
    text = sketch.put_middle(node("text stream", "ends", each), q.middle, q.below + 18)
    memory = sketch.put_middle(node(f"memory, width {op.memory_width:,}", "cross", each), kv.middle, q.below + 18)
    for lower, upper in ((q, top), (kv, top), (text, q), (memory, kv)):
        sketch.arrow((lower.middle, lower.y), (lower.middle, upper.below))
    note = "Keys and values of the memory are computed once and kept."
    return (Inset("Cross-attention", sketch.piece(width), note), heads(op, width))


@insets.register
def _(op: RelativeAttention, width: float) -> tuple[Inset, ...]:
    return (relative(op, width), heads(op, width))


def relative(op: RelativeAttention, width: float) -> Inset:
    """The learned bias of a key by its distance, which ends somewhere."""
    s, colour, high = Sketch(), family(op), 84.0
    start, end = 26.0, width - 16
    near = start + (end - start) * 0.62
    curve = [(start + (near - start) * i / 24, high * (0.18 + 0.6 * (1 - (1 - i / 24) ** 3))) for i in range(25)]
    s.mark(
        Line(tuple(curve), f"{colour}-edge", 2.5, radius=0),
        Line(((near, high * 0.78), (end, high * 0.78)), "norm-edge", 2),
    )
    s.arrow((start, high), (width, high))
    s.line((near, high * 0.5), (near, high), dashed=True)
    s.arrow((start, high), (start, 0))
    s.put(label("bias", SMALL, colour="muted"), start + 8, 0)
    s.put(label(f"{op.extent:,} tokens back", SMALL, colour="muted"), near - 40, high + 5)
    s.put(label("none", SMALL, colour="muted"), end - 40, high * 0.78 - 20)
    note = (
        f"No rotation: a key's score gets a bias of its distance, r · p, from {op.relative_dim} numbers of "
        "the query and a learned vector a distance."
    )
    return Inset("Relative positions", s.piece(width), note)
