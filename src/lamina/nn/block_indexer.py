"""Indexers beside softmax attention: small heads that choose which blocks, or which pools, of keys a query reads."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.arch.mixers.block_indexer import BlockIndexer as BlockIndexerValue
from lamina.arch.mixers.block_indexer import HeadIndexer as HeadIndexerValue
from lamina.arch.mixers.pooled_indexer import PooledIndexer as PooledIndexerValue
from lamina.nn.basic import Linear, norm
from lamina.nn.indexer import spared, turned
from lamina.nn.registry import Place, reads
from lamina.nn.runs import RunCache
from lamina.nn.state import FullCache, Stateful
from lamina.nn.step import Step
from lamina.ops.choosing import choose_blocks, choose_runs
from lamina.ops.rotary import rotate
from lamina.ops.sparse import Choice

reads(BlockIndexerValue, "heads head_dim rotary norm block top_k local")
reads(PooledIndexerValue, "heads head_dim rotary norm pool top_k")


class HeadIndexer(Stateful):
    """What both have: heads of queries, and one key a token.

    Shapes: x [B T D]; queries [B T I J]
    """

    joined = ("q_proj", "k_proj")

    def __init__(self, value: HeadIndexerValue, width: int, place: Place) -> None:
        super().__init__()
        self.slot = place.slot()
        self.heads, self.rotary = value.heads, value.rotary
        self.q_proj, self.k_proj = Linear(width, value.heads * value.head_dim), Linear(width, value.head_dim)
        self.q_norm, self.k_norm = norm(value.norm, value.head_dim), norm(value.norm, value.head_dim)

    def queries(self, q: Float[Tensor, "B T IJ"], step: Step) -> Float[Tensor, "B T I J"]:
        q = q.unflatten(-1, (self.heads, -1))
        return turned(q if self.q_norm is None else self.q_norm(q), self.rotary, step)


class BlockIndexer(HeadIndexer):
    """The `top_k` blocks with the best keys, chosen by each head for its share of the attention's.

    Source: MiniMax-M3's published reference.
    """

    def __init__(self, value: BlockIndexerValue, width: int, place: Place) -> None:
        super().__init__(value, width, place)
        self.value = value

    def state(self, batch: int, capacity: int, **like: Any) -> FullCache:
        return FullCache(batch, capacity, (1, self.value.head_dim), **like)

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Choice:
        value, (q, k) = self.value, self.project(x)
        k = k[:, :, None] if self.k_norm is None else self.k_norm(k[:, :, None])
        (keys,), _ = step.layers(self.slot).extend((turned(k, self.rotary, step).transpose(1, 2),), step)
        queries = self.queries(q, step)
        n, later = spared(step, value.reach)
        if n == step.tokens:
            return Choice(n)
        runs = choose_blocks(queries[:, n:], keys[:, 0], later, value.top_k, value.block, value.local)
        return Choice(n, runs, later, value.block)


class PooledIndexer(HeadIndexer):
    """The `top_k` pools whose mean keys are best; tokens after the last whole pool are read too.

    Source: the reference of Qwen4-Exp.
    """

    def __init__(self, value: PooledIndexerValue, width: int, place: Place) -> None:
        super().__init__(value, width, place)
        self.value = value

    def state(self, batch: int, capacity: int, **like: Any) -> RunCache:
        size, pool = self.value.head_dim, self.value.pool
        return RunCache(batch, capacity, pool, size, min(1, pool - 1), size, **like)

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Choice:
        value, (q, k) = self.value, self.project(x)

        def pooled(tokens: Float[Tensor, "B n P J"], numbers: Int[Tensor, "B n"]) -> Float[Tensor, "B n J"]:
            means = tokens.float().mean(2).to(tokens.dtype)
            means = means if self.k_norm is None else self.k_norm(means)
            if (rotary := self.rotary) is None:
                return means
            return rotate(means[:, None], rotary, *step.angles(rotary, numbers * value.pool))[:, 0]

        keys = step.layers(self.slot).held(self, step).drawn(k, step, pooled)
        queries = self.queries(q, step)
        n, later = spared(step, value.reach)
        if n == step.tokens:
            return Choice(n)
        runs = choose_runs(queries[:, n:], keys, None, later, value.top_k, value.pool)
        return Choice(n, runs, later, value.pool, tail=True)


def head_indexer(value: BlockIndexerValue | PooledIndexerValue, width: int, place: Place) -> HeadIndexer:
    """The module of either."""
    if isinstance(value, BlockIndexerValue):
        return BlockIndexer(value, width, place)
    return PooledIndexer(value, width, place)
