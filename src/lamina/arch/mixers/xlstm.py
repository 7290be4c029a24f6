"""mLSTM, the mixer of xLSTM: a matrix memory with exponential gates that are scalars."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from lamina.arch.measure import CHUNK, Kept, Shape, Work, linear, matrices, within
from lamina.arch.mixers.base import Mixer
from lamina.arch.mixers.lightning_attention import linear_attention
from lamina.arch.norm import LayerNorm, Norm


class MLSTM(Mixer):
    """C <- f C + i k v^T; n <- f n + i k; h = C^T q / max(|n . q|, exp(-m)), with f = sigmoid, i = exp.

    m is a running maximum that keeps the exponentials in bounds. `softcap` squashes what the gates are made of;
    `eps` is added below the fraction line. Every head's h is normalised alone, with weights of its own, and
    gated by a sigmoid of the input.
    Source: arXiv 2405.04517, eqs. 19 to 27; 2503.13427 (soft-caps, the norm).
    """

    kind: Literal["mlstm"] = "mlstm"
    heads: PositiveInt
    key_dim: PositiveInt
    value_dim: PositiveInt
    softcap: PositiveFloat | None = None
    eps: PositiveFloat = 1e-6
    norm: Norm = LayerNorm(bias=False)

    def weights(self, width: int) -> dict[str, Shape]:
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        named = linear("q_proj", keys, width) | linear("k_proj", keys, width) | linear("v_proj", values, width)
        named |= linear("input_gate_proj", self.heads, width, True) | linear(
            "forget_gate_proj", self.heads, width, True
        )
        named |= linear("gate_proj", values, width) | within("norm", self.norm.weights(values))
        return named | linear("o_proj", width, values)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        rule = linear_attention(self.heads, self.key_dim, self.value_dim)
        others = 2 * matrices(self.weights(width)) + 2 * self.heads * self.key_dim  # n . q
        return rule._replace(token=rule.token + others)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """C, n and m of every head in float32: K V + K + 1 numbers; the same at any length."""
        numbers = self.heads * (self.key_dim * self.value_dim + self.key_dim + 1)
        return (Kept("recurrent", numbers, each="sequence", dtype="float32"),)

    def saved(self, width: int) -> int:
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        states = self.heads * self.key_dim * self.value_dim // CHUNK  # one for every chunk
        return width + 2 * keys + values + 4 * self.heads + 4 * values + states
