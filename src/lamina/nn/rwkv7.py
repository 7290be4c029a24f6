"""RWKV-7's time mixing: all that the rule reads is made of the input mixed with that of the token before."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import RWKV7 as RWKV7Value
from lamina.nn.basic import Linear, Starting, norm
from lamina.nn.recurrent import Recurrent
from lamina.nn.registry import Place, runs
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.nn.token_shift import TokenShift
from lamina.ops.rwkv7 import rwkv7

USES = ("r", "decay", "k", "v", "step", "gate")
FASTEST = -math.exp(-0.5)
"""The logarithm of the strongest decay."""
VALUES = "rwkv7 values"
"""Under what name a block without a value rank leaves its values for later ones, in the step."""


@runs(RWKV7Value, "heads key_dim value_dim decay_rank step_rank gate_rank value_rank norm")
class RWKV7(Stateful, Starting):
    """A matrix state a head that fades by a vector and from which one direction is taken, as its value says.

    Shapes: x [B T D] -> [B T D]
    Differs: the direction is divided by its length, as in the authors' code, and not by the root of its square + 1e-6,
    as in the fused form of flash-linear-attention.
    """

    starts: ClassVar = {f"{use}_shift": 0.5 for use in USES} | {"direction": 1.0, "key_step": 1.0, "bonus": 0.0}

    def __init__(self, value: RWKV7Value, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        keys, values = value.heads * value.key_dim, value.heads * value.value_dim
        self.before = TokenShift(width, place)
        for use in USES:
            self.register_parameter(f"{use}_shift", nn.Parameter(torch.empty(width)))
        self.r_proj, self.k_proj, self.v_proj = Linear(width, keys), Linear(width, keys), Linear(width, values)
        self.decay_a_proj, self.decay_b_proj = _bottleneck(width, value.decay_rank, keys)
        self.step_a_proj, self.step_b_proj = _bottleneck(width, value.step_rank, keys)
        self.gate_a_proj, self.gate_b_proj = _bottleneck(width, value.gate_rank, values, bias=False)
        if value.value_rank:
            self.value_a_proj, self.value_b_proj = _bottleneck(width, value.value_rank, values)
        self.direction, self.key_step = nn.Parameter(torch.empty(keys)), nn.Parameter(torch.empty(keys))
        self.bonus = nn.Parameter(torch.empty(value.heads, value.key_dim))
        self.norm = norm(value.norm, values, value.heads)
        self.o_proj = Linear(values, width)

    def state(self, batch: int, capacity: int, **like: Any) -> Recurrent:
        return Recurrent(batch, (self.value.heads, self.value.key_dim, self.value.value_dim), **like)

    def _heads(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T H K"]:
        return x.unflatten(-1, (self.value.heads, -1))

    def _values(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T C"]:
        """Of each token, mixed with those that an earlier block left, or left for later ones."""
        v = self.v_proj(x)
        if not self.value.value_rank:
            step.shared[VALUES] = v
            return v
        return v.lerp(step.shared[VALUES], self.value_b_proj(self.value_a_proj(x)).sigmoid())

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        change = self.before(x, step)
        to_r, to_decay, to_k, to_v, to_step, to_gate = (x + change * self.get_parameter(f"{u}_shift") for u in USES)
        r, k, v = self.r_proj(to_r), self.k_proj(to_k), self._values(to_v, step)
        g = FASTEST * self.decay_b_proj(self.decay_a_proj(to_decay).tanh()).float().sigmoid()
        a = self.step_b_proj(self.step_a_proj(to_step)).float().sigmoid()
        gate = self.gate_b_proj(self.gate_a_proj(to_gate).sigmoid())
        c = F.normalize(self._heads(k * self.direction).float(), dim=-1)
        k = k * (1.0 + (a - 1.0) * self.key_step)
        r, k, v, g, a = map(self._heads, (r, k.to(x.dtype), v, g, a))
        held = step.layers(self.slot).held(self, step)
        read = (y.transpose(1, 2) for y in (r, k, v, g, -c, c * a))
        out, *held.kept = rwkv7(*read, *held.kept, lengths=step.padding)
        out = self.norm(out.transpose(1, 2).to(x.dtype))
        out = out + (r * k * self.bonus).sum(-1, keepdim=True) * v
        return self.o_proj(out.flatten(2) * gate)


def _bottleneck(width: int, rank: int, rows: int, bias: bool = True) -> tuple[Linear, Linear]:
    return Linear(width, rank), Linear(rank, rows, bias)
