"""Latent, sparse and compressed attention: what is kept of a token, and which tokens are chosen."""

from __future__ import annotations

import itertools

from lamina.arch import LatentAttention
from lamina.arch.mixers import (
    BlockIndexer,
    CompressedAttention,
    CompressedConvolutionalAttention,
    Indexer,
    PooledIndexer,
)
from lamina.report import words
from lamina.report.drawing.hues import family
from lamina.report.drawing.insets.attention import heads
from lamina.report.drawing.insets.base import Inset, insets, key, node
from lamina.report.drawing.parts import SMALL
from lamina.report.drawing.scene import Box, Cells, Piece, label
from lamina.report.drawing.sketch import Sketch

RISE = 20.0


@insets.register
def _(op: LatentAttention, width: float) -> tuple[Inset, ...]:
    return (latent_path(op, width), *(insets(op.indexer, width) if op.indexer else ()))


def latent_path(op: LatentAttention, width: float) -> Inset:
    """Queries and keys through their bottlenecks; what is kept is marked."""
    s, gap = Sketch(), 10.0
    wide = (width - 2 * gap) * 0.345
    narrow = width - 2 * gap - 2 * wide
    x1, x2, x3 = 0.0, wide + gap, 2 * (wide + gap)
    above = [node("output projection", "norm", 150)]
    if op.gate:
        above.append(
            node(f"× sigmoid(W x), {'each number' if op.gate == 'elementwise' else 'each head'}", "accent", 190)
        )
    y = 0.0
    places = []
    for piece in [*above, node(f"softmax(scale q·k) v in {op.heads} heads", "latent", width)]:
        places.append(s.put_middle(piece, width / 2, y))
        y = places[-1].below + 14
    for upper, lower in itertools.pairwise(places):
        s.arrow((width / 2, lower.y), (width / 2, upper.below))
    top = places[-1]
    y = top.below + RISE
    turned = "rotary" if op.rotary else "shared"
    sizes = f"{op.plain_dim} + {op.rotary_dim}" if op.rotary_dim else f"{op.plain_dim}"
    q = s.put(node(["q a head", sizes], "latent", wide), x1, y)
    kv = s.put(node(["k and v a head", f"{op.plain_dim} and {op.value_dim}"], "latent", wide), x2, y)
    s.arrow((q.middle, q.y), (q.middle, top.below))
    s.arrow((kv.middle, kv.y), (kv.middle, top.below))
    y = q.below + RISE
    source = "" if op.kv_from is None else f" of layer {op.kv_from}"
    lower_q = s.put(node(["query latent", f"{op.query_latent:,}"], "norm", wide), x1, y) if op.query_latent else q
    latent = s.put(node([f"latent{source}", f"{op.latent:,}"], "accent", wide, bold=True), x2, y)
    s.arrow((latent.middle, latent.y), (latent.middle, kv.below))
    if op.query_latent:
        s.arrow((q.middle, lower_q.y), (q.middle, q.below))
    ends = [lower_q, latent]
    if op.rotary_dim:
        rope = s.put(node([f"{turned} key", f"{op.rotary_dim}"], "accent", narrow, bold=True), x3, y)
        s.arrow((rope.middle, rope.y), (rope.middle, top.below))
        ends.append(rope)
    x = s.put_middle(label("x", SMALL, True), width / 2, latent.below + 26)
    if op.kv_from is None:
        for end in ends:
            s.arrow((width / 2, x.y), (width / 2, x.y - 8), (end.middle, x.y - 8), (end.middle, end.below))
    else:
        s.arrow((width / 2, x.y), (width / 2, x.y - 8), (lower_q.middle, x.y - 8), (lower_q.middle, lower_q.below))
    kept, full = op.latent + op.rotary_dim, op.heads * (op.head_dim + op.value_dim)
    note = (
        f"Kept of a token: {kept:,} numbers (marked). Its keys and values would be {full:,}, "
        f"{full / kept:.0f} times as many."
    )
    return Inset(f"Latent path of {words.kind_of(op)}", s.piece(width), note)


# -- choosing


@insets.register
def _(part: Indexer, width: float) -> tuple[Inset, ...]:
    if part.shared:
        return ()
    unit = f"pools of {part.pool.size} tokens" if part.pool else "tokens"
    note = (
        f"{part.heads} small heads of {part.head_dim} score every key; attention reads the best "
        f"{part.top_k:,} {unit if not part.pool else 'tokens, in ' + unit}."
    )
    return (Inset("Which tokens are read", _scores(width, None, "latent"), note),)


@insets.register
def _(part: BlockIndexer, width: float) -> tuple[Inset, ...]:
    note = (
        f"{part.heads} small heads of {part.head_dim} score keys; attention reads the {part.top_k} best "
        f"blocks of {part.block} tokens, the last {part.local} always."
    )
    return (Inset("Which blocks are read", _scores(width, 4, "full"), note),)


@insets.register
def _(part: PooledIndexer, width: float) -> tuple[Inset, ...]:
    note = (
        f"{part.heads} small heads of {part.head_dim} score the mean key of every {part.pool} tokens; "
        f"attention reads the {part.top_k} best pools and what comes after the last."
    )
    return (Inset("Which pools are read", _scores(width, 3, "full"), note),)


SCORES = (5, 2, 9, 3, 1, 4, 8, 2, 3, 10, 2, 1, 6, 3, 2, 7, 1, 3, 2, 11, 4, 9, 5, 12)


def _scores(width: float, block: int | None, colour: str) -> Piece:
    """Scores of earlier tokens as bars, the best of them chosen, and read by the query."""
    count = len(SCORES)
    pitch, high = (width - 40) / count, 54.0
    limit = sorted(SCORES)[-8]
    chosen = [score >= limit for score in SCORES]
    if block:
        best = [max(SCORES[i : i + block]) for i in range(0, count, block)]
        keep = sorted(best)[-3]
        chosen = [best[i // block] >= keep for i in range(count)]
    bars: dict[bool, list] = {True: [], False: []}
    for i, score in enumerate(SCORES):
        tall = high * score / 12
        bars[chosen[i]].append((i * pitch, high - tall, pitch - 3, tall))
    s = Sketch()
    s.mark(Cells(tuple(bars[False]), "norm-edge"), Cells(tuple(bars[True]), f"{colour}-edge"))
    tokens = {
        flag: tuple((i * pitch, high + 6, pitch - 3, 10.0) for i in range(count) if chosen[i] is flag)
        for flag in (True, False)
    }
    s.mark(Cells(tokens[False], "norm-soft"), Cells(tokens[True], f"{colour}-edge"))
    query = s.put(node("q", "accent", 26), width - 26, high + 0)
    bus = high + 34.0
    for group in _runs(chosen):
        x = (group[0] + group[-1] + 1) / 2 * pitch - 1.5
        s.line((x, high + 17), (x, bus))
    s.arrow((pitch, bus), (query.middle, bus), (query.middle, query.below), stroke="rail")
    signs = key([(_spot(f"{colour}-edge"), "chosen, read"), (_spot("norm-edge"), "left out")])
    s.put_middle(signs, width / 2, bus + 10)
    return s.piece(width)


def _runs(flags: list[bool]) -> list[list[int]]:
    found: list[list[int]] = []
    for i, flag in enumerate(flags):
        if flag and found and found[-1][-1] == i - 1:
            found[-1].append(i)
        elif flag:
            found.append([i])
    return found


def _spot(colour: str) -> Piece:
    return Piece(8, 8, (Box(0, 0, 8, 8, colour),))


# -- compressing


@insets.register
def _(op: CompressedAttention, width: float) -> tuple[Inset, ...]:
    s, count = Sketch(), 32
    pitch = width / count
    recent = 6
    tokens_y = 104.0
    tokens = [(i * pitch, tokens_y, pitch - 2, 12.0) for i in range(count)]
    s.mark(Cells(tuple(tokens[:-recent]), "norm-edge"), Cells(tuple(tokens[-recent:]), "window-edge"))
    query = s.put(node("q", "accent", 26), width - 30, 0)
    middle = width - recent * pitch / 2
    s.arrow((middle, tokens_y - 2), (middle, query.below))
    said = f"One key of {op.head_dim} numbers, which is the value too, for all {op.heads} heads"
    said += f": of the last {op.window:,} tokens"
    if op.compressor:
        said += _entries(op, s, tokens_y, pitch, count, query.x)
    s.put_middle(label("tokens", SMALL, colour="muted"), width / 2, tokens_y + 16)
    return (Inset(words.kind_of(op)[:1].upper() + words.kind_of(op)[1:], s.piece(width), said + "."),)


def _entries(op: CompressedAttention, s: Sketch, below: float, pitch: float, count: int, right: float) -> str:
    """Entries above the tokens that each stands for, and those that the query reads."""
    assert op.compressor
    stride = 4 if op.compressor.stride <= 16 else 8
    y, entries = 52.0, count // stride
    wide = stride * pitch * 0.6
    chosen = {1, 4, 6} if op.indexer else set(range(entries))
    for i in range(entries - 1):
        left = i * stride * pitch
        x = left + stride * pitch / 2
        s.mark(Box(x - wide / 2, y, wide, 12, "latent-edge" if i in chosen else "norm-edge", None, 3))
        over = stride * pitch * (0.5 if op.compressor.overlap and i else 0.0)
        for end in (left - over + 1, left + stride * pitch - 3):
            s.line((end, below - 2), (x, y + 14), stroke="line")
        if i in chosen:
            s.line((x, y - 2), (x, 11.0), (x + 1, 11.0))
    first = min(chosen) * stride * pitch + stride * pitch / 2
    s.arrow((first, 11.0), (right, 11.0))
    what = f", and entries of {op.compressor.stride} tokens each"
    return f"{what}, of which an indexer chooses {op.indexer.top_k:,}" if op.indexer else what


@insets.register
def _(op: CompressedConvolutionalAttention, width: float) -> tuple[Inset, ...]:
    colour = family(op)
    each = (width - 20) / 3
    s = Sketch()
    top = s.put_middle(node("softmax(q·k) v", colour, width), width / 2, 0)
    scaled = [
        s.put(node(text, "norm", each), i * (each + 10), top.below + 16)
        for i, text in enumerate(("unit length, rotate", "unit length, scale, rotate"))
    ]
    y = max(p.below for p in scaled) + 16
    mixed = s.put(
        node(
            f"convolutions of {op.depthwise} and {op.grouped} tokens, plus means of q and k",
            "convolution",
            2 * each + 10,
        ),
        0,
        y,
    )
    value = s.put(node(["half of this token,", "half of the one before"], colour, each), 2 * (each + 10), y)
    y = max(mixed.below, value.below) + 16
    made = [
        s.put(node(text, colour, each), i * (each + 10), y)
        for i, text in enumerate(
            (f"q {op.heads} × {op.head_dim}", f"k {op.kv_heads} × {op.head_dim}", f"v {op.kv_heads} × {op.head_dim}")
        )
    ]
    for place in scaled:
        s.arrow((place.middle, place.y), (place.middle, top.below))
        s.arrow((place.middle, mixed.y), (place.middle, place.below))
    s.arrow((value.middle, value.y), (value.middle, top.below))
    for place in made[:2]:
        s.arrow((place.middle, place.y), (place.middle, mixed.below))
    s.arrow((made[2].middle, made[2].y), (value.middle, value.below))
    note = f"Everything happens in {op.heads * op.head_dim:,} numbers, fewer than the stream has."
    return (Inset("Compressed convolutional attention", s.piece(width), note), heads(op, width))  # type: ignore[arg-type]
