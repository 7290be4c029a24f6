"""The indexer of Qwen's sparse attention: which pools of keys a query reads."""

from __future__ import annotations

from pydantic import PositiveInt

from lamina.arch.measure import Kept, Pairs
from lamina.arch.mixers.block_indexer import HeadIndexer


class PooledIndexer(HeadIndexer):
    """A small attention without values that chooses, for each query, the `top_k` pools of `pool` keys it reads.

    Score of a pool: the sum over heads of relu(q_h . k), k being the mean of the pool's keys, of `head_dim` numbers a
    token. Only whole pools of tokens that a query sees are scored; tokens after the last of them are always read.
    `norm` is of queries and of the means, which are then rotated, a mean as if it stood where its first token does.
    All of the attention's heads read the same choice, which passes no gradient.
    Source: the reference of Qwen4-Exp (Qwen3.8-Flash-Next).
    """

    pool: PositiveInt
    top_k: PositiveInt

    @property
    def reach(self) -> int:
        """The most keys that a query reads."""
        return self.top_k * self.pool + self.pool - 1

    def pairs(self) -> Pairs:
        """Scores of every whole pool; none of a query that sees no more than it may read."""
        return Pairs(2 * self.heads * self.head_dim, stride=self.pool, after=self.reach)

    def keeps(self) -> tuple[Kept, ...]:
        """A mean a pool, and the sum of the unfinished one."""
        unfinished = (Kept("index", self.head_dim, each="sequence"),) if self.pool > 1 else ()
        return (Kept("index", self.head_dim, stride=self.pool), *unfinished)
