"""Kimi Delta Attention: projections, a short convolution, and a delta rule whose decay is a vector a head."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import KimiDeltaAttention as KimiDeltaAttentionValue
from lamina.nn.basic import Linear, norm
from lamina.nn.convolution import Convolution
from lamina.nn.recurrent import Recurrent
from lamina.nn.registry import Place, runs
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.ops.vector_delta_rule import vector_delta_rule

FIELDS = "heads key_dim value_dim convolution decay_rank gate_rank gate_bias decay_floor norm"


@runs(KimiDeltaAttentionValue, FIELDS)
class KimiDeltaAttention(Stateful):
    """A delta rule with a step for each head and a decay for each row of its state, as its value says.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: KimiDeltaAttentionValue, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        keys, values = value.heads * value.key_dim, value.heads * value.value_dim
        self.sizes = keys, keys, values
        self.q_proj, self.k_proj, self.v_proj = Linear(width, keys), Linear(width, keys), Linear(width, values)
        self.step_proj = Linear(width, value.heads)
        if value.decay_rank is None:
            self.decay_proj = Linear(width, keys)
        else:
            self.decay_a_proj, self.decay_b_proj = Linear(width, value.decay_rank), Linear(value.decay_rank, keys)
        if value.gate_rank is None:
            self.gate_proj = Linear(width, values, value.gate_bias)
        else:
            self.gate_a_proj = Linear(width, value.gate_rank)
            self.gate_b_proj = Linear(value.gate_rank, values, value.gate_bias)
        self.convolution = Convolution(value.channels, value.convolution, place)
        self.decay_log_rate = nn.Parameter(torch.empty(value.heads))
        self.decay_bias = nn.Parameter(torch.empty(keys))
        self.norm = norm(value.norm, value.value_dim)
        self.o_proj = Linear(values, width)

    @property
    def joined(self) -> tuple[str, ...]:  # type: ignore[override]
        """The projections of the input."""
        names = ("q", "k", "v", "step", "decay", "decay_a", "gate", "gate_a")
        return tuple(f"{name}_proj" for name in names if f"{name}_proj" in self._modules)

    def state(self, batch: int, capacity: int, **like: Any) -> Recurrent:
        return Recurrent(batch, (self.value.heads, self.value.key_dim, self.value.value_dim), **like)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        value = self.value
        q, k, v, b, decay, gate = self.project(x)
        q, k, v = self.convolution(torch.cat([q, k, v], -1), step).split(self.sizes, -1)
        q, k = (part.unflatten(-1, (-1, value.key_dim)).transpose(1, 2) for part in (q, k))
        v = v.unflatten(-1, (-1, value.value_dim)).transpose(1, 2)
        g = self._decay(decay if value.decay_rank is None else self.decay_b_proj(decay))
        held = step.layers(self.slot).held(self, step)
        b = b.to(g.dtype).sigmoid().mT
        out, *held.kept = vector_delta_rule(q, k, v, g, b, *held.kept, lengths=step.padding)
        gate = gate if value.gate_rank is None else self.gate_b_proj(gate)
        out = self.norm(out.transpose(1, 2).to(x.dtype)).flatten(2)
        return self.o_proj(out * gate.sigmoid())

    def _decay(self, x: Float[Tensor, "B T HK"]) -> Float[Tensor, "B H T K"]:
        """Its logarithm, of float32 at least."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        rate = self.decay_log_rate.to(dtype).exp()[:, None]
        x = (x.to(dtype) + self.decay_bias).unflatten(-1, (-1, self.value.key_dim))
        floor = self.value.decay_floor
        return (floor * torch.sigmoid(rate * x) if floor else -rate * F.softplus(x)).transpose(1, 2)
