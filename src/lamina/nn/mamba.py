"""Mamba: a short convolution, then a selective scan whose step, B and C are made of what it reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import Mamba as MambaValue
from lamina.nn.basic import Linear, Starting, norm
from lamina.nn.convolution import Convolution
from lamina.nn.recurrent import Recurrent
from lamina.nn.registry import Place, runs
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.ops.linear import linear
from lamina.ops.packed import Packed
from lamina.ops.selective_scan import selective_scan


class HeadLinear(Linear):
    """A projection of each head, whose rows stand one head after the other. Shapes: x [B H T I] -> [B H T O]"""

    def __init__(self, heads: int, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__(inputs, heads * outputs, bias)
        self.heads = heads

    def forward(self, x: Float[Tensor, "B H T I"]) -> Float[Tensor, "B H T O"]:
        size, weight = self.outputs // self.heads, self.weight
        rows = [(h * size, (h + 1) * size) for h in range(self.heads)]
        parts = [weight.cut(*at) if isinstance(weight, Packed) else weight[slice(*at)] for at in rows]
        biases = [None if self.bias is None else self.bias[slice(*at)] for at in rows]
        each = [linear(x[:, h], parts[h], biases[h]) for h in range(self.heads)]
        return torch.stack(each, 1) if self.heads > 1 else each[0][:, None]  # and copies nothing


class StepProjection(HeadLinear, Starting):
    """What makes a token's steps of their bottleneck, before the softplus.

    Before training they are of 0.01: the geometric mean of the published range, 0.001 to 0.1.
    """

    starts: ClassVar = {"bias": math.log(math.expm1(0.01))}


@runs(MambaValue, "inner state rank convolution convolution_bias bias norms heads interleaved")
class Mamba(Stateful, Starting):
    """A selective scan of `inner` channels, gated, between two projections.

    Shapes: x [B T D] -> [B T D]
    """

    starts: ClassVar = {"skip": 1.0}

    def __init__(self, value: MambaValue, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        self.in_proj = Linear(width, 2 * value.inner, value.bias)
        self.convolution = Convolution(value.inner, value.convolution, place, value.convolution_bias)
        each = value.inner // value.heads
        self.x_proj = HeadLinear(value.heads, each, value.rank + 2 * value.state)
        self.step_norm = norm(value.norms, value.rank)
        self.b_norm, self.c_norm = norm(value.norms, value.state), norm(value.norms, value.state)
        self.step_proj = StepProjection(value.heads, value.rank, each, bias=True)
        self.decay_log_rate = nn.Parameter(torch.empty(value.inner, value.state))
        self.skip = nn.Parameter(torch.empty(value.inner))
        self.o_proj = Linear(value.inner, width, value.bias)

    def state(self, batch: int, capacity: int, **like: Any) -> Recurrent:
        return Recurrent(batch, (self.value.heads, self.value.inner // self.value.heads, self.value.state), **like)

    def _projected(self, x: Float[Tensor, "B T D"]) -> Sequence[Float[Tensor, "B T C"]]:
        both = self.in_proj(x)
        return both.unflatten(-1, (-1, 2)).unbind(-1) if self.value.interleaved else both.chunk(2, -1)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        value = self.value
        u, z = self._projected(x)
        u = self.convolution(u, step).unflatten(-1, (value.heads, -1)).transpose(1, 2)  # [B H T I/H]
        parts = self.x_proj(u).split([value.rank, value.state, value.state], -1)
        norms = self.step_norm, self.b_norm, self.c_norm
        low, b, c = (part if made is None else made(part) for part, made in zip(parts, norms, strict=True))
        d = F.softplus(self.step_proj(low).float())
        held = step.layers(self.slot).held(self, step)
        rate, skip = (part.float().unflatten(0, (value.heads, -1)) for part in (self.decay_log_rate, self.skip))
        out, *held.kept = selective_scan(u, d, b, c, rate.exp(), skip, *held.kept, lengths=step.padding)
        return self.o_proj(out.transpose(1, 2).flatten(2).to(x.dtype) * F.silu(z))
