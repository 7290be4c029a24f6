"""RG-LRU: a convolution, then a recurrence of each channel alone, whose gates read what is given to it."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import RGLRU as RGLRUValue
from lamina.nn.basic import ACTIVATIONS, Linear, Starting
from lamina.nn.convolution import Convolution
from lamina.nn.recurrent import Recurrent
from lamina.nn.registry import Place, runs
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.ops.rg_lru import rg_lru

STRENGTH = 8.0
"""What the decay's gate is multiplied by."""
DECAY = 0.97
"""What an open gate leaves of the state before training: within the published range, 0.9 to 0.999."""


class BlockDiagonal(nn.Module):
    """A projection of each of H equal parts of a vector alone.

    Shapes: x [B T I] -> [B T I]; weight [H I/H I/H], outputs first; bias [H I/H]
    """

    def __init__(self, heads: int, each: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, each, each))
        self.bias = nn.Parameter(torch.empty(heads, each))

    def forward(self, x: Float[Tensor, "B T I"]) -> Float[Tensor, "B T I"]:
        parts = x.unflatten(-1, self.bias.shape).flatten(0, 1).transpose(0, 1)
        y = torch.baddbmm(self.bias[:, None], parts, self.weight.mT)
        return y.transpose(0, 1).reshape(x.shape)


@runs(RGLRUValue, "inner heads convolution activation")
class RGLRU(Stateful, Starting):
    """A gated recurrence of `inner` channels, times a gate, between projections.

    Shapes: x [B T D] -> [B T D]
    """

    joined: ClassVar = ("gate_proj", "in_proj")
    starts: ClassVar = {"decay_rate": math.log(math.expm1(-math.log(DECAY) / STRENGTH))}

    def __init__(self, value: RGLRUValue, width: int, place: Place) -> None:
        super().__init__()
        self.inner, self.activation, self.slot = value.inner, ACTIVATIONS[value.activation], place.slot()
        self.gate_proj, self.in_proj = Linear(width, value.inner, True), Linear(width, value.inner, True)
        self.convolution = Convolution(value.inner, value.convolution, place, bias=True, silu=False)
        self.decay_rate = nn.Parameter(torch.empty(value.inner))
        each = value.inner // value.heads
        self.input_gate, self.decay_gate = BlockDiagonal(value.heads, each), BlockDiagonal(value.heads, each)
        self.o_proj = Linear(value.inner, width, True)

    def state(self, batch: int, capacity: int, **like: Any) -> Recurrent:
        return Recurrent(batch, (1, self.inner), **like)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        gate, u = self.project(x)
        u = self.convolution(u, step)
        g = -STRENGTH * F.softplus(self.decay_rate.float()) * self.decay_gate(u).float().sigmoid()
        u = u * self.input_gate(u).sigmoid()
        held = step.layers(self.slot).held(self, step)
        first = torch.tensor([start == 0 for start in step.starts], device=x.device)
        kept = {"first": first, "lengths": step.padding}
        out, *held.kept = rg_lru(u[:, None], g[:, None], *held.kept, **kept)
        return self.o_proj(self.activation(gate) * out[:, 0].to(x.dtype))
