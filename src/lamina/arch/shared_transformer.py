"""A transformer block beside a stack of mixers, whose weights several places share."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from lamina.arch.base import Op
from lamina.arch.feedforward import GLU
from lamina.arch.measure import Kept, Shape, Work, linear, matrices, within
from lamina.arch.mixers.attention import Attention
from lamina.arch.norm import Norm, RMSNorm
from lamina.arch.position import Rotary


class SharedTransformer(Op):
    """W f(norm(a(norm([x; e])))), of the stream x and what the embedding gave, e: attention a, then a feed-forward f.

    Nothing is added up within it. Of each place alone are W, the keys and values, and low-rank matrices that are added
    to the shared ones: of rank `attention_rank` to each projection of queries, keys and values, and of rank
    `feed_forward_rank` to both that the feed-forward begins with. All else is shared: `same_as` is the block whose
    weights are read where a place has none of its own.
    Source: arXiv 2405.16712, figure 2 (Zamba), 2411.15242, section 2 (Zamba 2).
    """

    kind: Literal["shared_transformer"] = "shared_transformer"
    attention: Attention
    feed_forward: GLU
    norm: Norm = RMSNorm()
    attention_rank: PositiveInt | None = None
    feed_forward_rank: PositiveInt | None = None
    same_as: NonNegativeInt | None = None

    @property
    def role(self) -> str:
        return "mixer"

    @property
    def rotary(self) -> Rotary | None:
        return self.attention.rotary

    @property
    def source(self) -> int | None:
        return self.same_as

    def borrows_of(self, other: Op) -> bool:
        """Whether all that is shared is the same there."""
        fields = "attention", "feed_forward", "norm"
        return isinstance(other, SharedTransformer) and all(getattr(self, f) == getattr(other, f) for f in fields)

    def shared(self, width: int) -> dict[str, Shape]:
        """The weights that several places may share."""
        op = self.attention
        attention = op.weights(2 * width) | linear("o_proj", width, op.heads * op.values, op.output_bias)
        norms = within("before", self.norm.weights(2 * width)) | within("between", self.norm.weights(width))
        return norms | within("attention", attention) | within("feed_forward", self.feed_forward.weights(width))

    def own(self, width: int) -> dict[str, Shape]:
        """Those of one place alone."""
        op, named = self.attention, linear("o_proj", width, width)
        if rank := self.attention_rank:
            rows = {"q": op.heads * op.head_dim, "k": op.kv_heads * op.head_dim, "v": op.kv_heads * op.values}
            for part, size in rows.items():
                adapter = linear("down", rank, 2 * width) | linear("up", size, rank)
                named |= within(f"attention.adapters.{part}", adapter)
        if rank := self.feed_forward_rank:
            adapter = linear("down", rank, width) | linear("up", 2 * self.feed_forward.inner, rank)
            named |= within("feed_forward.adapter", adapter)
        return named

    def weights(self, width: int) -> dict[str, Shape]:
        return self.own(width) | (self.shared(width) if self.same_as is None else {})

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        pairs = self.attention.work(2 * width, memory, decoding).pairs
        return Work(2 * matrices(self.own(width) | self.shared(width)), pairs)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """Keys and values of its own, wherever its weights are."""
        return self.attention.keeps(2 * width)

    def saved(self, width: int) -> int:
        adapted = 3 * (self.attention_rank or 0) + (self.feed_forward_rank or 0)
        norms = self.norm.saved(2 * width) + self.norm.saved(width)
        return norms + self.attention.saved(2 * width) + self.feed_forward.saved(width) + width + adapted
