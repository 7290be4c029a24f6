"""RWKV-7's time mixing: a matrix state that fades by a vector, and from which one direction is taken."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from lamina.arch.measure import CHUNK, Kept, Shape, Work, linear, matrices, within
from lamina.arch.mixers.base import Mixer
from lamina.arch.norm import LayerNorm, Norm


class RWKV7(Mixer):
    """S <- diag(w) S - (a c) (S^T c)^T + k v^T; o = S^T r, with a decay w and a step a for each row of a head's state.

    All are made of the input mixed with that of the token before, by a learned share for each use of each number: r, k
    and v by projections, the others by bottlenecks: w = exp(-e^-0.5 sigmoid(tanh)), a = sigmoid. The direction c is the
    unit vector of k times a weight; k itself is then times 1 + (a - 1) times another. Each head's output is normalised,
    has v added times the sum of r k and the `bonus`, and is gated by a bottleneck with a sigmoid within.

    Fields: with a `value_rank`, v is mixed with that of the last block before that has none, by a sigmoid from a
    bottleneck of that rank; the others are the ranks of the bottlenecks for w, a and the gate.
    Source: arXiv 2503.14456, section 4.
    """

    kind: Literal["rwkv7"] = "rwkv7"
    heads: PositiveInt
    key_dim: PositiveInt
    value_dim: PositiveInt
    decay_rank: PositiveInt
    step_rank: PositiveInt
    gate_rank: PositiveInt
    value_rank: PositiveInt | None = None
    norm: Norm = LayerNorm(eps=64e-5)

    def weights(self, width: int) -> dict[str, Shape]:
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        named: dict[str, Shape] = {f"{use}_shift": (width,) for use in ("r", "decay", "k", "v", "step", "gate")}
        named |= linear("r_proj", keys, width) | linear("k_proj", keys, width) | linear("v_proj", values, width)
        named |= _bottleneck("decay", keys, width, self.decay_rank, True)
        named |= _bottleneck("step", keys, width, self.step_rank, True)
        named |= _bottleneck("gate", values, width, self.gate_rank, False)
        named |= _bottleneck("value", values, width, self.value_rank, True) if self.value_rank else {}
        named |= {"direction": (keys,), "key_step": (keys,), "bonus": (self.heads, self.key_dim)}
        return named | within("norm", self.norm.weights(values)) | linear("o_proj", width, values)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        """Of the rule, a token reads the state twice and writes it twice.

        Of a chunk of n tokens there are also scores of a's c and of r with both that are written (8 K n^2), a
        triangular system (V n^2) and scores times values (6 V n^2); half of the scores are of later tokens, and are
        not computed.
        """
        state, others = self.heads * self.key_dim * self.value_dim, matrices(self.weights(width))
        others -= self.heads * self.key_dim  # the bonus is no matrix product
        return Work(8 * state + 2 * others, chunked=self.heads * (4 * self.key_dim + 7 * self.value_dim))

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """A K x V matrix a head in float32, and the last input; the same at any length."""
        matrix = self.heads * self.key_dim * self.value_dim
        return (
            Kept("recurrent", matrix, each="sequence", dtype="float32"),
            Kept("convolution", width, each="sequence"),
        )

    def saved(self, width: int) -> int:
        keys, values = self.heads * self.key_dim, self.heads * self.value_dim
        ranks = 2 * (self.decay_rank + self.step_rank + self.gate_rank + (self.value_rank or 0))
        states = self.heads * self.key_dim * self.value_dim // CHUNK  # one for every chunk
        return 8 * width + 9 * keys + 7 * values + ranks + states


def _bottleneck(name: str, rows: int, width: int, rank: int, bias: bool) -> dict[str, Shape]:
    """A map to `rows` numbers through `rank` ones."""
    return linear(f"{name}_a_proj", rank, width) | linear(f"{name}_b_proj", rows, rank, bias)
