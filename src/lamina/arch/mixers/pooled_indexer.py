"""The indexer of Qwen's sparse attention: which pools of keys a query reads."""

from __future__ import annotations

from pydantic import PositiveInt, model_validator

from lamina.arch.base import Node
from lamina.arch.measure import Kept, Pairs, Shape, linear, within
from lamina.arch.norm import Norm, RMSNorm
from lamina.arch.position import Rotary


class PooledIndexer(Node):
    """A small attention without values that chooses, for each query, the `top_k` pools of `pool` keys it reads.

    Score of a pool: the sum over heads of relu(q_h . k), k being the mean of the pool's keys, of `head_dim` numbers a
    token. Only whole pools of tokens that a query sees are scored; tokens after the last of them are always read.
    `norm` is of queries and of the means, which are then rotated, a mean as if it stood where its first token does.
    All of the attention's heads read the same choice, which passes no gradient.
    Source: the reference of Qwen4-Exp (Qwen3.8-Flash-Next).
    """

    heads: PositiveInt
    head_dim: PositiveInt
    pool: PositiveInt
    top_k: PositiveInt
    rotary: Rotary | None = None
    norm: Norm | None = RMSNorm()

    @model_validator(mode="after")
    def _consistent(self) -> PooledIndexer:
        if self.rotary and self.rotary.dim > self.head_dim:
            raise ValueError(f"rotary.dim ({self.rotary.dim}) must not exceed head_dim ({self.head_dim})")
        return self

    @property
    def reach(self) -> int:
        """The most keys that a query reads."""
        return self.top_k * self.pool + self.pool - 1

    def weights(self, width: int) -> dict[str, Shape]:
        made = linear("q_proj", self.heads * self.head_dim, width) | linear("k_proj", self.head_dim, width)
        if self.norm:
            of_head = self.norm.weights(self.head_dim)
            made |= within("q_norm", of_head) | within("k_norm", of_head)
        return made

    def pairs(self) -> Pairs:
        """Scores: of every whole pool."""
        return Pairs(2 * self.heads * self.head_dim, stride=self.pool)

    def keeps(self) -> tuple[Kept, ...]:
        """A mean a pool, and the sum of the unfinished one."""
        unfinished = (Kept("index", self.head_dim, each="sequence"),) if self.pool > 1 else ()
        return (Kept("index", self.head_dim, stride=self.pool), *unfinished)
