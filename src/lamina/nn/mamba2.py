"""Mamba-2: one projection, a short convolution, a state-space recurrence and a gated norm."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import Mamba2 as Mamba2Value
from lamina.nn.basic import Linear, norm
from lamina.nn.convolution import Convolution
from lamina.nn.recurrent import Recurrent
from lamina.nn.registry import Place, runs
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.ops.ssd import ssd

FIELDS = "heads head_dim groups state convolution convolution_bias bias norm norm_groups norm_first output_bias"


@runs(Mamba2Value, f"{FIELDS} step_min step_max multipliers")
class Mamba2(Stateful):
    """A matrix a head that fades with the step of each token, as its value says.

    Shapes: x [B T D] -> [B T D]
    """

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

    def _steps(self, raw: Tensor) -> Float[Tensor, "B H T"]:
        step = F.softplus(raw.float() + self.step_bias)
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
        steps = self._steps(raw)
        g = -self.decay_log_rate.float().exp()[:, None] * steps
        held = step.layers(self.slot).held(self, step)
        y, *held.kept = ssd(c, b, v, g, steps, self.skip, *held.kept, lengths=step.padding)
        return self.o_proj(self._gated(y.transpose(1, 2).flatten(2), gate).to(x.dtype))
