"""The indexer of latent attention: a small attention without values that chooses what each query reads.

Its keys are kept beside the latents, and its scores alone grow with the context. A choice is left in the step for the
layers that take it over.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lamina.arch.mixers.latent_attention import Indexer as IndexerValue
from lamina.arch.mixers.latent_attention import KeyPool
from lamina.arch.position import Rotary
from lamina.nn.basic import Linear, norm
from lamina.nn.registry import Place, reads
from lamina.nn.runs import RunCache
from lamina.nn.state import FullCache, Stateful
from lamina.nn.step import Step
from lamina.nn.temperature import Temperature
from lamina.ops.choosing import choose_runs
from lamina.ops.rotary import rotate
from lamina.ops.sparse import Choice

reads(IndexerValue, "heads head_dim top_k rotary norm query_norm temperature pool shared rotated")
reads(KeyPool, "size tail", tail=(True,))


def spared(step: Step, reach: int) -> tuple[int, Int[Tensor, "R t"]]:
    """How many of the first queries see at most `reach` keys, so that none needs choosing; the others' positions."""
    longest = max(start + n for start, n in zip(step.starts, step.lengths, strict=True))
    n = step.tokens if longest <= reach else min(step.tokens, max(0, reach - max(step.starts)))
    return n, step.positions[:, n:]


def turned(x: Float[Tensor, "B T I J"], rotary: Rotary | None, step: Step, last: bool = False) -> Tensor:
    """Queries or keys of an indexer, rotated: their first dimensions, or the last."""
    if rotary is None:
        return x
    plain, x = x.split([x.shape[-1] - rotary.dim, rotary.dim], -1) if last else (None, x)
    x = rotate(x.transpose(1, 2), rotary, *step.rotary(rotary)).transpose(1, 2)
    return x if plain is None else torch.cat([plain, x], -1)


class Indexer(Stateful):
    """Chooses for each query the `top_k` tokens that it reads, or so many in pools and those after the last whole pool.

    Shapes: x [B T D]; latent [B T Q], which queries are made from, is x where there is none
    Source: arXiv 2512.02556, eq. 1 and 2; pools: the reference of GLM-5.3-Flash.
    """

    def __init__(self, value: IndexerValue, width: int, latent: int | None, place: Place) -> None:
        super().__init__()
        self.value, self.own = value, not value.shared
        if value.shared:
            return
        self.slot = place.slot()
        size, queries = value.head_dim, latent or width
        self.q_input_norm = norm(value.query_norm, queries)
        self.q_proj = Linear(queries, value.heads * size)
        self.k_proj = Linear(width, size)
        self.k_norm = norm(value.norm, size)
        self.head_weights = Linear(width, value.heads)
        self.temperature = Temperature(value.heads) if value.temperature else None
        self.pool_proj = Linear(width, size) if value.pool else None
        self.pool_bias = nn.Parameter(torch.empty(value.pool.size, size)) if value.pool else None

    def state(self, batch: int, capacity: int, **like: Any) -> FullCache | RunCache:
        size, pool = self.value.head_dim, self.value.pool
        if pool is None:
            return FullCache(batch, capacity, (1, size), **like)
        return RunCache(batch, capacity, pool.size, size, pool.size - 1, 2 * size, **like)

    @torch.no_grad()
    def forward(self, x: Float[Tensor, "B T D"], latent: Float[Tensor, "B T Q"], step: Step) -> Choice:
        if self.value.shared:
            return step.shared["choice"]
        value, size = self.value, self.value.pool.size if self.value.pool else 1
        keys, queries, weights = self._keys(x, step), self._queries(latent, step), self.head_weights(x)
        n, later = spared(step, value.chosen)
        choice = Choice(n)
        if n < step.tokens:
            runs = choose_runs(queries[:, n:], keys, weights[:, n:], later, value.top_k // size, size)
            choice = Choice(n, runs, later, size, tail=value.pool is not None)
        step.shared["choice"] = choice
        return choice

    def _queries(self, latent: Float[Tensor, "B T Q"], step: Step) -> Float[Tensor, "B T I J"]:
        read = latent if self.q_input_norm is None else self.q_input_norm(latent)
        q = self.q_proj(read).unflatten(-1, (self.value.heads, -1))
        if self.temperature is not None:
            q = q * self.temperature(step).transpose(1, 2)
        return turned(q, self.value.rotary, step, self.value.rotated == "last")

    def _keys(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B S J"]:
        """The key of every token, or of every whole pool."""
        k = self.k_proj(x)
        k = k if self.k_norm is None else self.k_norm(k)
        k = turned(k[:, :, None], self.value.rotary, step, self.value.rotated == "last")[:, :, 0]
        kept = step.layers(self.slot)
        if self.pool_proj is None:
            (keys,), _ = kept.extend((k[:, None],), step)
            return keys[:, 0]
        new = torch.cat([k, self.pool_proj(x)], -1)
        return kept.held(self, step).drawn(new, step, self._pooled)

    def _pooled(self, tokens: Float[Tensor, "B n P 2J"], numbers: Tensor) -> Float[Tensor, "B n J"]:
        assert self.pool_bias is not None
        keys, logits = tokens.chunk(2, -1)
        weights = (logits.float() + self.pool_bias).softmax(2)
        return (weights.to(keys.dtype) * keys).sum(2)
