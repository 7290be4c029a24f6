"""Linear attention: a state that sums k v^T, with features of keys, a decay a head, or a decay a number of the key."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt, model_validator

from lamina.arch.measure import CHUNK, Kept, Shape, Work, linear, matrices, within
from lamina.arch.mixers.base import Mixer
from lamina.arch.mixers.lightning_attention import linear_attention
from lamina.arch.norm import Norm, RMSNorm
from lamina.arch.position import Rotary

Features = Literal["elu", "relu", "identity"]
Gate = Literal["silu", "sigmoid", "gelu"]


class _Heads(Mixer):
    """H states of K x V; q is times K^-0.5; the output is normalised a head, gated, and projected back."""

    heads: PositiveInt
    key_dim: PositiveInt
    value_dim: PositiveInt
    norm: Norm | None = RMSNorm()
    gate: Gate | None = "silu"

    @property
    def columns(self) -> int:
        """Of a state."""
        return self.value_dim

    def weights(self, width: int) -> dict[str, Shape]:
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        named = linear("q_proj", keys, width) | linear("k_proj", keys, width) | linear("v_proj", values, width)
        named |= linear("gate_proj", values, width) if self.gate else {}
        named |= within("norm", self.norm.weights(self.value_dim)) if self.norm else {}
        return named | linear("o_proj", width, values)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        rule = linear_attention(self.heads, self.key_dim, self.columns)
        return rule._replace(token=rule.token + 2 * matrices(self.weights(width)))

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """The states in float32; the same at any length."""
        return (Kept("recurrent", self.heads * self.key_dim * self.columns, each="sequence", dtype="float32"),)

    def saved(self, width: int) -> int:
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        normed = self.heads * self.norm.saved(self.value_dim) if self.norm else 0
        return width + 2 * keys + values + normed + (2 if self.gate else 0) * values + values


class LinearAttention(_Heads):
    """S <- S + f(k) v^T, z <- z + f(k); o = S^T f(q) / (z . f(q) + eps), with f the `features` of each number.

    f is elu(x) + 1, relu(x) or x. Without `normalise` there is no z, and o = S^T f(q).
    Source: arXiv 2006.16236, eqs. 5 to 7 and 18 to 20.
    """

    kind: Literal["linear_attention"] = "linear_attention"
    features: Features = "elu"
    normalise: bool = True
    eps: PositiveFloat = 1e-6
    norm: Norm | None = None
    gate: Gate | None = None

    @property
    def columns(self) -> int:
        """z is one more."""
        return self.value_dim + self.normalise

    def saved(self, width: int) -> int:
        """Queries and keys before their features, and what is divided, besides."""
        values = self.heads * (self.value_dim + 1) if self.normalise else 0
        return super().saved(width) + 2 * self.heads * self.key_dim + values


class Retention(_Heads):
    """S <- a S + k v^T; o = S^T q, with one decay a head that is no parameter: a = 1 - 2^(-5 - h), h from 0.

    Source: arXiv 2307.08621, eqs. 5 to 8 (rotated queries and keys, a norm a head, a gate).
    """

    kind: Literal["retention"] = "retention"
    rotary: Rotary | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Retention:
        if self.rotary and self.rotary.dim > self.key_dim:
            raise ValueError(f"rotary.dim ({self.rotary.dim}) is larger than key_dim ({self.key_dim})")
        return self


class GatedLinearAttention(_Heads):
    """S <- diag(a) S + k v^T; o = S^T q, with a decay for each of the K rows: a = sigmoid(x W1 W2 + b)^(1 / damping).

    W1 goes to `decay_rank` numbers.
    Source: arXiv 2312.06635, section 4.
    """

    kind: Literal["gated_linear_attention"] = "gated_linear_attention"
    decay_rank: PositiveInt = 16
    damping: PositiveFloat = 16.0

    def weights(self, width: int) -> dict[str, Shape]:
        decay = linear("decay_a_proj", self.decay_rank, width)
        return super().weights(width) | decay | linear("decay_b_proj", self.heads * self.key_dim, self.decay_rank, True)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """Scores are of two different tokens, each two once; a token's own is no product of matrices."""
        work, scores = super().work(width), 2 * self.heads * self.key_dim
        return work._replace(chunked=work.chunked - scores, crossed=scores)

    def saved(self, width: int) -> int:
        states = self.heads * self.key_dim * self.value_dim // CHUNK  # one for every chunk
        return super().saved(width) + self.decay_rank + 2 * self.heads * self.key_dim + states
