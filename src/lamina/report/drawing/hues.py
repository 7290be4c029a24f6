"""Which colour family a part is drawn in: told by what it keeps of a sequence, so that a new mechanism has one too."""

from __future__ import annotations

import functools

from lamina.arch import Block, Mamba, Mamba2, Mamba3, Op, Parallel
from lamina.arch.feedforward import FeedForward

WIDTH = 64  # of a stream to ask parts about that say nothing without one
KEPT = {
    "latent": "latent",
    "compressed": "latent",
    "recurrent": "delta",
    "window": "window",
    "chunk": "window",
    "cross": "cross",
    "full": "full",
    "convolution": "convolution",
}
"""By kind of what is kept; the first that a part keeps decides."""


@functools.singledispatch
def family(op: Op) -> str:
    """The colour family of an op."""
    if isinstance(op, FeedForward):
        return "experts" if op.unused(WIDTH) else "dense"
    kept = {k.kind for k in op.keeps(WIDTH)}
    if not kept and getattr(op, "kv_from", None) is not None:
        return "window" if getattr(op, "window", None) else "full"
    return next((found for kind, found in KEPT.items() if kind in kept), "other")


@family.register
def _(op: Mamba | Mamba2 | Mamba3) -> str:
    return "scan"


@family.register
def _(op: Parallel) -> str:
    return family(op.ops[0])


def mixers(block: Block) -> list[Op]:
    return [op for op in block.ops() if not isinstance(op, FeedForward)]


def feed_forwards(block: Block) -> list[Op]:
    return [op for op in block.ops() if isinstance(op, FeedForward)]


def hues(block: Block) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The colour families of a block's mixers, and of its feed-forwards."""
    return tuple(map(family, mixers(block))), tuple(map(family, feed_forwards(block)))
