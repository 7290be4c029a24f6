"""A router that is deeper than one matrix."""

from __future__ import annotations

from pydantic import PositiveInt

from lamina.arch.base import Node
from lamina.arch.measure import Shape, linear, within
from lamina.arch.norm import Norm, RMSNorm


class RouterMLP(Node):
    """Logits from r = W x + b of `width` numbers: gelu of a linear map of norm(r), and so on; a last one has no bias.

    `layers` counts the maps before the last. With `carried`, a learned vector times the r of the block before is
    added to r, and goes on to the next block as part of it.
    Source: arXiv 2511.17127 (ZAYA1), section on the router.
    """

    width: PositiveInt
    layers: PositiveInt = 2
    carried: bool = False
    norm: Norm = RMSNorm()

    def weights(self, width: int, experts: int) -> dict[str, Shape]:
        named = linear("down_proj", self.width, width, True) | within("norm", self.norm.weights(self.width))
        named |= {"carry": (self.width,)} if self.carried else {}
        for i in range(self.layers):
            named |= linear(f"layers.{i}", self.width, self.width, True)
        return named | linear("gate", experts, self.width)
