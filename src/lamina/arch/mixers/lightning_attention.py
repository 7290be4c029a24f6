"""Lightning attention: linear attention whose state fades at a rate that is fixed for each head."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from lamina.arch.feedforward import Activation
from lamina.arch.measure import CHUNK, Kept, Shape, Work, linear, matrices, within
from lamina.arch.mixers.base import Mixer
from lamina.arch.norm import Norm, RMSNorm


def linear_attention(heads: int, key_dim: int, value_dim: int, key_heads: int | None = None) -> Work:
    """Of the rule alone, with a state of K x V a head.

    A token writes the state and reads it, 4 K V. Of a chunk of n tokens there are also scores of queries with keys
    (2 K n^2 a head of keys), and those times values (2 V n^2).
    Source: arXiv 2401.04658, section 3 (the tiled form).
    """
    chunked = 2 * (key_heads or heads) * key_dim + 2 * heads * value_dim
    return Work(4 * heads * key_dim * value_dim, chunked=chunked)


class LightningAttention(Mixer):
    """S <- exp(-rate) S + k v^T; o = S^T q, with q, k and v behind an activation and no positions.

    Head h of H fades at a rate of 2^(-8 h / H), h from 1; `by_depth` makes that of block i of n smaller by
    1 - i / (n - 1) + 1e-5. All heads' output is normalised together, and gated by a sigmoid of the input.
    Source: arXiv 2401.04658 (the mechanism), 2501.08313 (MiniMax-01).
    """

    kind: Literal["lightning_attention"] = "lightning_attention"
    heads: PositiveInt
    head_dim: PositiveInt
    activation: Activation = "silu"
    by_depth: bool = True
    norm: Norm = RMSNorm()

    def weights(self, width: int) -> dict[str, Shape]:
        inner = self.heads * self.head_dim
        named = linear("q_proj", inner, width) | linear("k_proj", inner, width) | linear("v_proj", inner, width)
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
        states = self.heads * self.head_dim**2 // CHUNK  # one for every chunk
        return width + 6 * inner + 4 * inner + states  # q, k, v twice; o, its norm, the gate, what it lets through
