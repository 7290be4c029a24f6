"""The indexer of block-sparse attention: which blocks of keys a query reads."""

from __future__ import annotations

from pydantic import NonNegativeInt, PositiveInt, model_validator

from lamina.arch.base import Node
from lamina.arch.measure import Kept, Pairs, Shape, linear, within
from lamina.arch.norm import Norm, RMSNorm
from lamina.arch.position import Rotary


class HeadIndexer(Node):
    """What indexers have in common that stand beside ordinary attention: small query heads, and one key a token."""

    heads: PositiveInt
    head_dim: PositiveInt
    rotary: Rotary | None = None
    norm: Norm | None = RMSNorm()

    @model_validator(mode="after")
    def _fits(self) -> HeadIndexer:
        if self.rotary and self.rotary.dim > self.head_dim:
            raise ValueError(f"rotary.dim ({self.rotary.dim}) must not exceed head_dim ({self.head_dim})")
        return self

    def weights(self, width: int) -> dict[str, Shape]:
        made = linear("q_proj", self.heads * self.head_dim, width) | linear("k_proj", self.head_dim, width)
        if self.norm:
            of_head = self.norm.weights(self.head_dim)
            made |= within("q_norm", of_head) | within("k_norm", of_head)
        return made


class BlockIndexer(HeadIndexer):
    """A small attention without values that chooses, for each query, the `top_k` blocks of `block` keys it reads.

    Score of a block: the largest q . k among those of its keys that the query sees, with one key of `head_dim`
    numbers a token. Each head chooses for an equal share of the attention's heads. The `local` last blocks, a
    query's own among them, are always chosen. `norm` is of the indexer's queries and keys, before they are rotated.
    The choice passes no gradient.
    Source: MiniMax-M3's published config and reference; choosing blocks is arXiv 2502.11089, section 3.3.
    """

    block: PositiveInt
    top_k: PositiveInt
    local: NonNegativeInt = 1

    @model_validator(mode="after")
    def _consistent(self) -> BlockIndexer:
        if self.local > self.top_k:
            raise ValueError(f"local ({self.local}) blocks are among the top_k ({self.top_k}) that are chosen")
        return self

    @property
    def reach(self) -> int:
        """The most keys that a query reads."""
        return self.top_k * self.block

    def pairs(self) -> Pairs:
        """Scores of every key; none of a query that sees no more than it may read."""
        return Pairs(2 * self.heads * self.head_dim, after=self.reach)

    def keeps(self) -> tuple[Kept, ...]:
        return (Kept("index", self.head_dim),)
