"""Mamba-2: one projection, a short convolution, a state-space recurrence and a gated norm."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import Mamba2 as Mamba2Value
from lamina.nn.basic import Linear, Starting, norm
from lamina.nn.convolution import Convolution
from lamina.nn.recurrent import Recurrent
from lamina.nn.registry import Place, runs
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.ops.ssd import ssd

FIELDS = "heads head_dim groups state convolution convolution_bias bias norm norm_groups norm_first output_bias"
STEP = 0.01
"""How large steps are before training: the geometric mean of the published range, 0.001 to 0.1."""


@runs(Mamba2Value, f"{FIELDS} step_min step_max multipliers")
class Mamba2(Stateful, Starting):
    """A matrix a head that fades with the step of each token, as its value says.

    Shapes: x [B T D] -> [B T D]
    """

    starts: ClassVar = {"skip": 1.0, "step_bias": math.log(math.expm1(STEP))}

    def __init__(self, value: Mamba2Value, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        shared = value.groups * value.state
        self.sizes = value.inner, value.inner, shared, shared, value.heads
        self.in_proj = Linear(width, sum(self.sizes), value.bias)
        self.convolution = Convolution(value.channels, value.convolution, place, value.convolution_bias)
        self.step_bias = nn.Parameter(torch.empty(value.heads))
        self.decay_log_rate = nn.Parameter(torch.empty(value.heads))
        self.skip = nn.Parameter(torch.empty(value.heads))
        self.norm = norm(value.norm, value.inner, value.norm_groups)
        self.o_proj = Linear(value.inner, width, value.output_bias)

    def state(self, batch: int, capacity: int, **like: Any) -> Recurrent:
        return Recurrent(batch, (self.value.heads, self.value.head_dim, self.value.state), **like)

    def _projected(self, x: Tensor) -> tuple[Tensor, ...]:
        """The gate; x, B and C beside each other; the step of each head."""
        value, projected = self.value, self.in_proj(x)
        if set(value.multipliers) != {1.0}:
            each = torch.tensor(value.multipliers, dtype=x.dtype, device=x.device)
            projected = projected * each.repeat_interleave(torch.tensor(self.sizes, device=x.device))
        return projected.split((value.inner, value.channels, value.heads), -1)

    def _steps(self, raw: Float[Tensor, "B T H"], dtype: torch.dtype) -> Float[Tensor, "B H T"]:
        step = F.softplus(raw.to(dtype) + self.step_bias)
        if self.value.step_min or self.value.step_max is not None:
            step = step.clamp(self.value.step_min, self.value.step_max)
        return step.mT

    def _gated(self, y: Float[Tensor, "B T C"], gate: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        if not self.value.norm_first:
            y = y * F.silu(gate)
        if self.norm is not None:
            y = self.norm(y.unflatten(-1, (self.value.norm_groups, -1))).flatten(-2)
        return y * F.silu(gate) if self.value.norm_first else y

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        value = self.value
        gate, mixed, raw = self._projected(x)
        v, b, c = self.convolution(mixed, step).split(self.sizes[1:4], -1)
        v, b, c = (
            part.unflatten(-1, (-1, n)).transpose(1, 2)
            for part, n in ((v, value.head_dim), (b, value.state), (c, value.state))
        )
        held = step.layers(self.slot).held(self, step)
        exact = held.kept[0].dtype
        steps = self._steps(raw, exact)
        g = -self.decay_log_rate.to(exact).exp()[:, None] * steps
        y, *held.kept = ssd(c, b, v, g, steps, self.skip, *held.kept, lengths=step.padding)
        return self.o_proj(self._gated(y.transpose(1, 2).flatten(2), gate).to(x.dtype))
