"""Mamba: a short convolution, then a selective scan whose step, B and C are made of what it reads."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import Mamba as MambaValue
from lamina.nn.basic import Linear, norm
from lamina.nn.convolution import Convolution
from lamina.nn.recurrent import Recurrent
from lamina.nn.registry import Place, runs
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.ops.selective_scan import selective_scan


@runs(MambaValue, "inner state rank convolution convolution_bias bias norms")
class Mamba(Stateful):
    """A selective scan of `inner` channels, gated, between two projections.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: MambaValue, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        self.in_proj = Linear(width, 2 * value.inner, value.bias)
        self.convolution = Convolution(value.inner, value.convolution, place, value.convolution_bias)
        self.x_proj = Linear(value.inner, value.rank + 2 * value.state)
        self.step_norm = norm(value.norms, value.rank)
        self.b_norm, self.c_norm = norm(value.norms, value.state), norm(value.norms, value.state)
        self.step_proj = Linear(value.rank, value.inner, bias=True)
        self.decay_log_rate = nn.Parameter(torch.empty(value.inner, value.state))
        self.skip = nn.Parameter(torch.empty(value.inner))
        self.o_proj = Linear(value.inner, width, value.bias)

    def state(self, batch: int, capacity: int, **like: Any) -> Recurrent:
        return Recurrent(batch, (1, self.value.inner, self.value.state), **like)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        value = self.value
        u, z = self.in_proj(x).chunk(2, -1)
        u = self.convolution(u, step)
        parts = self.x_proj(u).split([value.rank, value.state, value.state], -1)
        norms = self.step_norm, self.b_norm, self.c_norm
        low, b, c = (part if made is None else made(part) for part, made in zip(parts, norms, strict=True))
        d = F.softplus(self.step_proj(low).float())
        held = step.layers(self.slot).held(self, step)
        rate, skip = self.decay_log_rate.float().exp(), self.skip.float()
        sequences = (part[:, None] for part in (u, d, b, c))
        out, *held.kept = selective_scan(*sequences, rate[None], skip[None], *held.kept, lengths=step.padding)
        return self.o_proj(out[:, 0].to(x.dtype) * F.silu(z))
