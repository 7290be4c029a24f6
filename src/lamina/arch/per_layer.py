"""Per-layer inputs: vectors of a token that go to every block beside the stream, and how a block takes them in."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from lamina.arch.base import Node
from lamina.arch.feedforward import Activation, FeedForward
from lamina.arch.measure import Shape, Work, linear, within
from lamina.arch.norm import Norm, RMSNorm


class PerLayerInputs(Node):
    """P numbers of each token for each of N blocks: (scale * table[id] + norm(D^-0.5 W e)) / sqrt(2).

    e is the token's embedding as the stream begins with it; the norm is over the P numbers of one block. Ids of
    `vocab` and beyond read the row of id 0.
    Source: as in Gemma 3n and Gemma 4.
    """

    vocab: PositiveInt
    width: PositiveInt
    blocks: PositiveInt
    scale: PositiveFloat
    norm: Norm = RMSNorm()

    def weights(self, width: int) -> dict[str, Shape]:
        each = self.blocks * self.width
        named: dict[str, Shape] = {"table.weight": (self.vocab, each)} | linear("projection", each, width)
        return named | within("norm", self.norm.weights(self.width))

    def unused(self) -> int:
        """A token reads one row of the table."""
        return (self.vocab - 1) * self.blocks * self.width

    def work(self, width: int) -> Work:
        return Work(2 * width * self.blocks * self.width)

    def saved(self, width: int) -> int:
        return 2 * self.blocks * self.width


class PerLayerInput(FeedForward):
    """down(act(gate(x)) * p), with p the block's part of the per-layer inputs, of `inner` numbers.

    Where there are several streams (AltUp), x is the active one after it was corrected, times its `output_scale`,
    and all but the first are added to.
    """

    kind: Literal["per_layer_input"] = "per_layer_input"
    inner: PositiveInt
    activation: Activation = "gelu_tanh"

    @property
    def role(self) -> str:
        return "per_layer_input"

    def weights(self, width: int) -> dict[str, Shape]:
        return linear("gate_proj", self.inner, width) | linear("down_proj", width, self.inner)

    def saved(self, width: int) -> int:
        return width + 3 * self.inner  # x, gate(x), act(gate(x)), what down reads; p is saved once for all blocks
