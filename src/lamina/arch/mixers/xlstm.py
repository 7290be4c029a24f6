"""The mixers of xLSTM: mLSTM with a matrix memory, sLSTM with one number a cell and a way back from its output."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from lamina.arch.measure import CHUNK, Kept, Shape, Work, linear, matrices, within
from lamina.arch.mixers.base import Mixer
from lamina.arch.mixers.lightning_attention import linear_attention
from lamina.arch.norm import LayerNorm, Norm


class MLSTM(Mixer):
    """C <- f C + i k v^T; n <- f n + i k; h = C^T q / max(|n . q|, exp(-m)), with f = sigmoid, i = exp.

    q is times K^-0.5. m is a running maximum that keeps the exponentials in bounds. `softcap` squashes what the gates
    are made of; `eps` is added below the fraction line. Every head's h is normalised alone, with weights of its own,
    and gated by a sigmoid of the input.
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


class SLSTM(Mixer):
    """c <- f c + i z; n <- f n + i; h = o c / n, each of P cells a head, with i = exp and o = sigmoid.

    z = tanh and the gates are made of the input and of the h before, by one P x P matrix a head for each of the four,
    so tokens can only be taken one after the other. m is a running maximum that keeps the exponentials in bounds. Every
    head's h is normalised alone, with weights of its own.

    Fields: `forget` says what f is of what it is made of.
    Source: arXiv 2405.04517, eqs. 8 to 17. Differs: the block of that paper makes i and f of a short
    convolution's output, and has no o_proj.
    """

    kind: Literal["slstm"] = "slstm"
    heads: PositiveInt
    head_dim: PositiveInt
    forget: Literal["sigmoid", "exponential"] = "sigmoid"
    norm: Norm = LayerNorm(bias=False)

    def weights(self, width: int) -> dict[str, Shape]:
        cells = self.heads * self.head_dim
        named: dict[str, Shape] = {}
        for name in ("z_proj", "input_gate_proj", "forget_gate_proj", "gate_proj"):
            named |= linear(name, cells, width, True)
        named["recurrent"] = (4, self.heads, self.head_dim, self.head_dim)
        return named | within("norm", self.norm.weights(cells)) | linear("o_proj", width, cells)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        return Work(2 * matrices(self.weights(width)) + 8 * self.heads * self.head_dim**2)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """c, n, h and m of every cell in float32; the same at any length."""
        return (Kept("recurrent", 4 * self.heads * self.head_dim, each="sequence", dtype="float32"),)

    def saved(self, width: int) -> int:
        """The state before each chunk, and what is made of the input; a chunk's own steps are computed again."""
        cells = self.heads * self.head_dim
        return width + 4 * cells + 3 * cells + 4 * cells // CHUNK
