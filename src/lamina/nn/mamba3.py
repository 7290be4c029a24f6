"""Mamba-3: one projection, a trapezoidal recurrence that turns, and a gate; no convolution."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import Mamba3 as Mamba3Value
from lamina.nn.basic import Linear, Starting, norm
from lamina.nn.mamba2 import STEP
from lamina.nn.recurrent import Recurrent
from lamina.nn.registry import Place, runs
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.ops.mamba3 import mamba3


@runs(Mamba3Value, "heads head_dim groups state rank turning norm output_norm rate rate_floor bias")
class Mamba3(Stateful, Starting):
    """A matrix a head that fades, turns and takes in a mean of two tokens, as its value says.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: Mamba3Value, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        self.in_proj = Linear(width, sum(value.sizes), value.bias)
        self.step_bias = nn.Parameter(torch.empty(value.heads))
        self.b_bias = nn.Parameter(torch.empty(value.heads, value.rank, value.state))
        self.c_bias = nn.Parameter(torch.empty(value.heads, value.rank, value.state))
        self.skip = nn.Parameter(torch.empty(value.heads))
        self.b_norm, self.c_norm = norm(value.norm, value.state), norm(value.norm, value.state)
        for name in ("x_up", "gate_up", "down") if value.rank > 1 else ():
            self.register_parameter(name, nn.Parameter(torch.empty(value.heads, value.rank, value.head_dim)))
        self.output_norm = norm(value.output_norm, value.inner, value.heads)
        self.o_proj = Linear(value.inner, width, value.bias)

    @property
    def starts(self) -> dict[str, float]:  # type: ignore[override]
        begun = {"step_bias": math.log(math.expm1(STEP)), "b_bias": 1.0, "c_bias": 1.0, "skip": 1.0}
        share = 1.0 / self.value.rank
        return begun | ({"x_up": share, "gate_up": 1.0, "down": share} if self.value.rank > 1 else {})

    def state(self, batch: int, capacity: int, **like: Any) -> Recurrent:
        value = self.value
        matrices = (value.heads, value.head_dim, value.state), (value.heads, value.rank, value.state)
        return Recurrent(batch, (value.heads, value.turning), *matrices, (value.heads, value.head_dim), **like)

    def _spread(self, name: str, like: Tensor) -> Float[Tensor, "H R P"]:
        """The weights that spread channels over rows, or draw rows together; ones where there is one row."""
        value = self.value
        return self.get_parameter(name) if value.rank > 1 else like.new_ones(value.heads, 1, value.head_dim)

    def _rows(self, x: Tensor, normed: nn.Module) -> Float[Tensor, "B G T R N"]:
        return normed(x.unflatten(-1, (self.value.rank, self.value.groups, -1))).permute(0, 3, 1, 2, 4)

    def _rate(self, p: Float[Tensor, "B T H"]) -> Float[Tensor, "B T H"]:
        heavy = self.value.rate == "heavy_tail"
        rate = p.clamp(min=0.0) + (1 - p.clamp(max=0.0)).reciprocal() if heavy else F.softplus(p)
        return rate.clamp(min=self.value.rate_floor)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        value = self.value
        gate, inner, b, c, raw, rate, lean, turns = self.in_proj(x).split(value.sizes, -1)
        held = step.layers(self.slot).held(self, step)
        exact = held.kept[0].dtype
        raw, rate, lean, turns = (part.to(exact) for part in (raw, rate, lean, turns))
        steps = F.softplus(raw + self.step_bias).mT
        heads = inner.unflatten(-1, (value.heads, -1)).transpose(1, 2)
        up = self._spread("x_up", x)
        y, held.kept = mamba3(
            *(self._rows(c, self.c_norm), self._rows(b, self.b_norm), heads),
            *(-self._rate(rate).mT * steps, steps, lean.sigmoid().mT, math.pi * turns.tanh()[:, None]),
            *(torch.stack([self.c_bias, self.b_bias]), up),
            state=held.kept,
            lengths=step.padding,
        )
        y = y + self.skip[:, None, None, None] * (heads[..., None, :] * up[:, None])
        y = y.permute(0, 2, 3, 1, 4)  # [B T R H P]
        if self.output_norm is not None:
            y = self.output_norm(y)
        spread = gate.unflatten(-1, (1, value.heads, -1)) * self._spread("gate_up", x).transpose(0, 1)
        y = (y * F.silu(spread) * self._spread("down", x).transpose(0, 1)).sum(2)
        return self.o_proj(y.flatten(2).to(x.dtype))
