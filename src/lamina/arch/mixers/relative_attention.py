"""Softmax attention that knows positions by a learned bias of each distance, not by rotation."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from lamina.arch.base import Node
from lamina.arch.measure import Kept, Pairs, Shape, Work, linear, matrices, within
from lamina.arch.mixers.attention import LengthTemperature, QKNorm, check_groups
from lamina.arch.mixers.base import Mixer
from lamina.arch.norm import Norm
from lamina.arch.short_filter import ShortFilter


class LengthClip(Node):
    """Shortens vectors that are too long: queries and keys to `limit`, relative states to `relative`.

    Queries and relative states are first multiplied by learned numbers, one for each of every head's.
    """

    limit: PositiveFloat
    relative: PositiveFloat


class RelativeAttention(Mixer):
    """Attention whose score of a key at distance d is `scale` q . k + r . p_d, with r of the query's token.

    r is a map of the input to `relative_dim` (R) numbers a head, the relative state; p holds a learned vector for
    each distance below `extent`, shared by the heads, and is zero beyond. No rotation.

    Fields: `filter` is a short convolution of keys and values before their norms; `qk_norm`, or `clip`, is of each
    head's queries and keys, `value_norm` of its values; `temperature` multiplies queries and relative states, as in
    Attention; `gate` multiplies the heads' output by a sigmoid of the input; with `sinks` a map of the input adds a
    score a head to the softmax, for no token.
    Source: Inkling and Inkling 2; the idea of relative states is arXiv 1803.02155.
    """

    kind: Literal["relative_attention"] = "relative_attention"
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    relative_dim: PositiveInt
    extent: PositiveInt
    window: PositiveInt | None = None
    scale: PositiveFloat | None = None
    filter: ShortFilter | None = None
    qk_norm: QKNorm | None = None
    clip: LengthClip | None = None
    value_norm: Norm | None = None
    temperature: LengthTemperature | None = None
    gate: Literal["elementwise"] | None = None
    sinks: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> RelativeAttention:
        check_groups(self.heads, self.kv_heads)
        if self.qk_norm and self.clip:
            raise ValueError("a qk_norm and a clip exclude each other")
        return self

    def weights(self, width: int) -> dict[str, Shape]:
        q, kv, r = self.heads * self.head_dim, self.kv_heads * self.head_dim, self.heads * self.relative_dim
        named = linear("q_proj", q, width) | linear("k_proj", kv, width) | linear("v_proj", kv, width)
        named |= linear("relative_proj", r, width) | linear("o_proj", width, q)
        named |= {"distances": (self.relative_dim, self.extent)}
        if self.filter:
            named |= within("k_filter", self.filter.weights(kv, width))
            named |= within("v_filter", self.filter.weights(kv, width))
        named |= self.qk_norm.weights(self.heads, self.kv_heads, self.head_dim) if self.qk_norm else {}
        named |= {"q_scale": (q,), "relative_scale": (r,)} if self.clip else {}
        named |= within("v_norm", self.value_norm.weights(self.head_dim)) if self.value_norm else {}
        named |= linear("gate_proj", q, width) if self.gate else {}
        return named | (linear("sink_proj", self.heads, width) if self.sinks else {})

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """A distance is scored for the keys that are within the extent, and seen."""
        products = {n: shape for n, shape in self.weights(width).items() if n != "distances" and "filter" not in n}
        kv = self.kv_heads * self.head_dim
        filters = 2 * self.filter.flops(kv, width) if self.filter else 0
        scores = Pairs(4 * self.heads * self.head_dim, self.window)
        near = Pairs(2 * self.heads * self.relative_dim, min(self.extent, self.window or self.extent))
        return Work(2 * matrices(products) + filters, (scores, near))

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """Keys and values, and the last inputs of their filters."""
        kv = self.kv_heads * self.head_dim
        cached = Kept("window" if self.window else "full", 2 * kv, window=self.window)
        return (cached, *(self.filter.keeps(2 * kv) if self.filter else ()))

    def saved(self, width: int) -> int:
        q, kv, r = self.heads * self.head_dim, self.kv_heads * self.head_dim, self.heads * self.relative_dim
        normed = (q + kv if self.qk_norm else 0) + (q + kv + r if self.clip else 0) + (kv if self.value_norm else 0)
        filtered = 2 * self.filter.saved(kv) if self.filter else 0
        gate, sinks = 2 * q if self.gate else 0, self.heads if self.sinks else 0
        return width + q + 2 * kv + r + normed + filtered + q + self.heads + gate + sinks
