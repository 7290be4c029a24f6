"""Lightning attention: linear attention whose state fades at a rate that is fixed for each head."""

from __future__ import annotations

from typing import Literal

from pydantic import NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lamina.arch.feedforward import Activation
from lamina.arch.measure import Kept, Shape, Work, linear, matrices, within
from lamina.arch.mixers.base import Mixer
from lamina.arch.norm import Norm, RMSNorm
from lamina.arch.position import Rotary


def linear_attention(heads: int, key_dim: int, value_dim: int, key_heads: int | None = None) -> Work:
    """Of the rule alone, with a state of K x V a head.

    A token writes the state and reads it, 4 K V. Of a chunk of n tokens there are also scores of queries with keys
    (2 K n^2 a head of keys), and those times values (2 V n^2).
    Source: arXiv 2401.04658, section 3 (the tiled form).
    """
    chunked = 2 * (key_heads or heads) * key_dim + 2 * heads * value_dim
    return Work(4 * heads * key_dim * value_dim, chunked=chunked)


class LightningAttention(Mixer):
    """S <- exp(-rate) S + k v^T; o = scale S^T q, with q, k and v behind an activation.

    Head h of H fades at a rate of 2^(-8 h / H), h from 1; `by_depth` makes that of block i of n smaller by
    1 - (i - first) / (n - 1) + 1e-5. All heads' output is normalised together, or in `norm_groups` groups of heads
    that share no statistics, and gated by a sigmoid of the input.

    Fields: `rates` say what a number of heads that is no power of two does: "powers" takes those of the power of two
    below, and then every other one of its double (as ALiBi does). `qk_norm` is of each head of q, and of k, with
    weights of their own, before they are rotated.
    Source: arXiv 2401.04658 (the mechanism), 2501.08313 (MiniMax-01); Ling 2.5 (norms, rotation, groups).
    Differs: n - 1 is n - 1 + 1e-5, as in the reference, which one block needs; the published code divides by n - 1.
    """

    kind: Literal["lightning_attention"] = "lightning_attention"
    heads: PositiveInt
    head_dim: PositiveInt
    activation: Activation | None = "silu"
    by_depth: bool = True
    first: NonNegativeInt = 0
    rates: Literal["even", "powers"] = "even"
    scale: PositiveFloat = 1.0
    qk_norm: Norm | None = None
    rotary: Rotary | None = None
    norm: Norm = RMSNorm()
    norm_groups: PositiveInt = 1

    @model_validator(mode="after")
    def _consistent(self) -> LightningAttention:
        if self.heads % self.norm_groups:
            raise ValueError(f"heads ({self.heads}) must be a multiple of norm_groups ({self.norm_groups})")
        if self.rotary and self.rotary.dim > self.head_dim:
            raise ValueError(f"rotary.dim ({self.rotary.dim}) is larger than head_dim ({self.head_dim})")
        return self

    @property
    def rate(self) -> tuple[float, ...]:
        """Of each head, before the depth counts."""
        return _even(self.heads) if self.rates == "even" else _powers(self.heads)

    def of_depth(self, block: int, blocks: int) -> float:
        """What the rates of a block are multiplied by."""
        return 1.0 - (block - self.first) / (blocks - 1 + 1e-5) + 1e-5 if self.by_depth else 1.0

    def weights(self, width: int) -> dict[str, Shape]:
        inner = self.heads * self.head_dim
        named = linear("q_proj", inner, width) | linear("k_proj", inner, width) | linear("v_proj", inner, width)
        if self.qk_norm:
            of_head = self.qk_norm.weights(self.head_dim)
            named |= within("q_norm", of_head) | within("k_norm", of_head)
        named |= linear("gate_proj", inner, width) | within("norm", self.norm.weights(inner))
        return named | linear("o_proj", width, inner)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        rule = linear_attention(self.heads, self.head_dim, self.head_dim)
        return rule._replace(token=rule.token + 2 * matrices(self.weights(width)))

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """A K x K matrix a head in float32; the same at any length."""
        return (Kept("recurrent", self.heads * self.head_dim**2, each="sequence", dtype="float32"),)

    def saved(self, width: int) -> int:
        inner = self.heads * self.head_dim
        before = 3 * inner if self.activation else 0
        normed = 2 * self.heads * self.qk_norm.saved(self.head_dim) if self.qk_norm else 0
        # q, k, v before and after the activation; o, its norm, the gate, what it lets through
        return width + before + 3 * inner + normed + 4 * inner


def _even(heads: int) -> tuple[float, ...]:
    return tuple(2.0 ** (-8.0 * h / heads) for h in range(1, heads + 1))


def _powers(heads: int) -> tuple[float, ...]:
    """Source: arXiv 2108.12409 (ALiBi), its published code."""
    below = 1 << (heads.bit_length() - 1)
    return _even(below) + _even(2 * below)[::2][: heads - below]
