"""A short causal convolution beside the vector itself."""

from __future__ import annotations

from pydantic import PositiveFloat, PositiveInt

from lamina.arch.base import Node
from lamina.arch.measure import Kept, Shape, linear


class ShortFilter(Node):
    """y_t = `scale` * (x_t + sum_j w_j x_(t - j)), the sum over the last `kernel` tokens, w learned for each channel.

    With `heads`, channels fall into so many heads, and to their w_j is added a number that a head's channels share,
    projected from what x was projected from. Source: Inkling and Inkling 2.
    """

    kernel: PositiveInt
    scale: PositiveFloat = 1.0
    heads: PositiveInt | None = None

    def weights(self, channels: int, width: int) -> dict[str, Shape]:
        """Of a filter of `channels`; `width` is that of what they were projected from."""
        named: dict[str, Shape] = {"convolution.weight": (channels, 1, self.kernel)}
        return named | (linear("taps", self.heads * self.kernel, width) if self.heads else {})

    def flops(self, channels: int, width: int) -> int:
        return 2 * channels * self.kernel + (2 * self.heads * self.kernel * width if self.heads else 0)

    def keeps(self, channels: int) -> tuple[Kept, ...]:
        """The last inputs; the same at any length."""
        return (Kept("convolution", channels * (self.kernel - 1), each="sequence"),) if self.kernel > 1 else ()

    def saved(self, channels: int) -> int:
        return channels + (self.heads * self.kernel if self.heads else 0)
