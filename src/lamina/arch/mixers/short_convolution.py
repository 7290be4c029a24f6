"""A gated short convolution: a mixer that sees only the last few tokens."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from lamina.arch.measure import Kept, Shape, Work, linear, matrices
from lamina.arch.mixers.base import Mixer


class ShortConvolution(Mixer):
    """out(c * conv(b * x)), with b, c and x projected from the input and a causal convolution of each channel.

    Source: LFM2 technical report, arXiv 2511.23404, section 2.
    """

    kind: Literal["short_convolution"] = "short_convolution"
    kernel: PositiveInt
    bias: bool = False

    def weights(self, width: int) -> dict[str, Shape]:
        named = linear("in_proj", 3 * width, width, self.bias)
        named |= {"convolution.weight": (width, 1, self.kernel)}
        named |= {"convolution.bias": (width,)} if self.bias else {}
        return named | linear("o_proj", width, width, self.bias)

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        return Work(2 * matrices(self.weights(width)) + 2 * width * self.kernel)

    def keeps(self, width: int) -> tuple[Kept, ...]:
        """The last inputs of the convolution; the same at any length."""
        return (Kept("convolution", width * (self.kernel - 1), each="sequence"),)

    def saved(self, width: int) -> int:
        return 7 * width
