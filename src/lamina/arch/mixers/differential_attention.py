"""Differential attention: each head subtracts a second softmax map from its first, so that what both hold cancels."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from lamina.arch.measure import Kept, Pairs, Shape, Work, linear, matrices, within
from lamina.arch.mixers.attention import check_groups
from lamina.arch.mixers.base import Mixer
from lamina.arch.norm import Norm, RMSNorm
from lamina.arch.position import Rotary


class DifferentialAttention(Mixer):
    """(1 - initial) norm((softmax(q1 k1) - m softmax(q2 k2)) v): two maps of queries and keys of K numbers a head.

    A value has 2 K numbers; G heads of keys and values serve H / G heads each. All heads of a layer share
    m = exp(a1 . b1) - exp(a2 . b2) + initial, with four learned vectors of K numbers. Weights of queries and keys hold
    those of all first maps and then those of all second ones; of values, the first halves and then the second.

    Fields: `initial` is 0.8 - 0.6 exp(-0.3 i) in block i where it is None; `norm` is of each head's output; `bias` that
    of the q, k and v projections, `output_bias` that of the output projection.
    Source: arXiv 2410.05258, eq. 1 to 3. Differs: there the norm has weights, which `norm` may have.
    """

    kind: Literal["differential_attention"] = "differential_attention"
    heads: PositiveInt
    kv_heads: PositiveInt
    head_dim: PositiveInt
    rotary: Rotary | None = None
    initial: PositiveFloat | None = None
    norm: Norm = RMSNorm(eps=1e-5, weight=False)
    bias: bool = False
    output_bias: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> DifferentialAttention:
        check_groups(self.heads, self.kv_heads)
        if self.rotary and self.rotary.dim > self.head_dim:
            raise ValueError(f"rotary.dim ({self.rotary.dim}) must not exceed head_dim ({self.head_dim})")
        if self.initial and self.initial >= 1:
            raise ValueError(f"initial ({self.initial}) must be below 1, for outputs are multiplied by 1 - initial")
        return self

    @property
    def values(self) -> int:
        """The size of a value."""
        return 2 * self.head_dim

    def initial_of(self, block: int) -> float:
        """Where the second map's share begins in a block."""
        return 0.8 - 0.6 * math.exp(-0.3 * block) if self.initial is None else self.initial

    def weights(self, width: int) -> dict[str, Shape]:
        q, k = self.heads * self.values, self.kv_heads * self.values
        named = linear("q_proj", q, width, self.bias) | linear("k_proj", k, width, self.bias)
        named |= linear("v_proj", k, width, self.bias) | linear("o_proj", width, q, self.output_bias)
        named |= {f"lambda_{name}": (self.head_dim,) for name in ("q1", "k1", "q2", "k2")}
        return named | within("norm", self.norm.weights(self.values))

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        scores = 2 * 2 * self.heads * (self.head_dim + self.values)  # two maps
        return Work(2 * matrices(self.weights(width)), (Pairs(scores),))

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """Two keys of K numbers and a value of 2 K, of each of G heads."""
        return (Kept("full", 2 * self.kv_heads * self.values),)

    def saved(self, width: int) -> int:
        q, k = self.heads * self.values, self.kv_heads * self.values
        normed = self.heads * self.norm.saved(self.values)
        return width + q + 2 * k + 2 * (q + self.heads) + normed + q  # both maps' outputs; the norm of their difference
