"""RG-LRU: a recurrence of each channel alone, with gates that read the input (Griffin, RecurrentGemma)."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, model_validator

from lamina.arch.feedforward import Activation
from lamina.arch.measure import CHUNK, Kept, Shape, Work, linear
from lamina.arch.mixers.base import Mixer


class RGLRU(Mixer):
    """out(act(gate(x)) * h), with h <- a h + sqrt(1 - a^2) i u, where u is a causal convolution of in(x).

    a = exp(-8 r softplus(rate)), with a learned `rate` a channel; r and i are sigmoids of linear maps of u, each of
    `heads` blocks on the diagonal. The state has `inner` numbers; the first token of a sequence is not scaled by
    sqrt(1 - a^2).
    Source: arXiv 2402.19427, section 2.4.
    """

    kind: Literal["rg_lru"] = "rg_lru"
    inner: PositiveInt
    heads: PositiveInt
    convolution: PositiveInt = 4
    activation: Activation = "gelu_tanh"

    @model_validator(mode="after")
    def _consistent(self) -> RGLRU:
        if self.inner % self.heads:
            raise ValueError(f"inner ({self.inner}) must be a multiple of heads ({self.heads})")
        return self

    def weights(self, width: int) -> dict[str, Shape]:
        each = self.inner // self.heads
        named = linear("gate_proj", self.inner, width, True) | linear("in_proj", self.inner, width, True)
        named |= {"convolution.weight": (self.inner, 1, self.convolution), "convolution.bias": (self.inner,)}
        named |= {"decay_rate": (self.inner,)}
        for gate in ("input_gate", "decay_gate"):
            named |= {f"{gate}.weight": (self.heads, each, each), f"{gate}.bias": (self.heads, each)}
        return named | linear("o_proj", width, self.inner, True)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        projections = 3 * self.inner * width
        gates = 2 * self.inner * (self.inner // self.heads)
        return Work(2 * (projections + gates + self.inner * self.convolution))

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """A number a channel in float32, and the convolution's last inputs; the same at any length."""
        tail = self.inner * (self.convolution - 1)
        return (
            Kept("recurrent", self.inner, each="sequence", dtype="float32"),
            Kept("convolution", tail, each="sequence"),
        )

    def saved(self, width: int) -> int:
        # x; the gate before and after its activation; what the convolution reads and gives; r, i, and what i lets in;
        # the decay's logarithm, 1 - a^2, its root and what that lets in; h, and what the gate lets through
        return width + 13 * self.inner + self.inner // CHUNK
