"""Per-layer inputs: vectors of a token that go to every block beside the stream, and how a block takes them in."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lamina.arch.per_layer import PerLayerInput as PerLayerInputValue
from lamina.arch.per_layer import PerLayerInputs as PerLayerInputsValue
from lamina.nn.basic import ACTIVATIONS, Linear, norm
from lamina.nn.registry import Place, reads, runs
from lamina.nn.step import Step
from lamina.ops.linear import lookup
from lamina.ops.packed import Packed

reads(PerLayerInputsValue, "vocab width blocks scale norm")


class PerLayerInputs(nn.Module):
    """(scale * table[id] + norm(D^-0.5 W e)) / sqrt(2), for each block; left for the blocks to take.

    Shapes: ids [B T], e [B T D] -> [B T N P]
    """

    packable: ClassVar = ("table",)
    table: nn.Parameter | Packed

    def __init__(self, value: PerLayerInputsValue, width: int) -> None:
        super().__init__()
        self.value = value
        self.table = nn.Parameter(torch.empty(value.vocab, value.blocks * value.width))
        self.projection = Linear(width, value.blocks * value.width)
        self.norm = norm(value.norm, value.width)
        self.factor = width**-0.5

    def forward(self, ids: Int[Tensor, "B T"], e: Float[Tensor, "B T D"], step: Step) -> None:
        each = -1, self.value.width
        known = torch.where(ids < self.value.vocab, ids, 0)
        read = lookup(known, self.table).unflatten(-1, each) * self.value.scale
        seen = (self.projection(e) * self.factor).unflatten(-1, each)
        seen = seen if self.norm is None else self.norm(seen)
        step.inputs = (seen + read) * 0.5**0.5


@runs(PerLayerInputValue, "inner activation")
class PerLayerInput(nn.Module):
    """down(act(gate(x)) * p), with p the block's part of what the embedding left.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: PerLayerInputValue, width: int, place: Place) -> None:
        super().__init__()
        self.block = place.block
        self.gate_proj = Linear(width, value.inner)
        self.down_proj = Linear(value.inner, width)
        self.activation = ACTIVATIONS[value.activation]

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        assert step.inputs is not None
        return self.down_proj(self.activation(self.gate_proj(x)) * step.inputs[:, :, self.block])
