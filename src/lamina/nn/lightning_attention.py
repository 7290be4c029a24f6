"""Lightning attention: projections behind an activation, and a state that fades at a fixed rate for each head."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lamina.arch.mixers import LightningAttention as LightningAttentionValue
from lamina.nn.basic import ACTIVATIONS, Linear, norm
from lamina.nn.recurrent import Recurrent
from lamina.nn.registry import Place, reads, runs
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.ops.linear_attention import linear_attention
from lamina.ops.rotary import rotate

FIELDS = "heads head_dim activation by_depth first rates scale qk_norm rotary norm norm_groups"


@runs(LightningAttentionValue, FIELDS)
class LightningAttention(Stateful):
    """Linear attention with a fixed decay a head, as its value says.

    Shapes: x [B T D] -> [B T D]
    """

    joined = ("q_proj", "k_proj", "v_proj", "gate_proj")

    def __init__(self, value: LightningAttentionValue, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        self.slower = value.of_depth(place.block, place.blocks)
        inner = value.heads * value.head_dim
        self.q_proj, self.k_proj, self.v_proj = (Linear(width, inner) for _ in range(3))
        self.gate_proj = Linear(width, inner)
        self.q_norm, self.k_norm = norm(value.qk_norm, value.head_dim), norm(value.qk_norm, value.head_dim)
        self.norm = norm(value.norm, inner, value.norm_groups)
        self.o_proj = Linear(inner, width)

    def state(self, batch: int, capacity: int, **like: Any) -> Recurrent:
        return Recurrent(batch, (self.value.heads, self.value.head_dim, self.value.head_dim), **like)

    def _turned(self, x: Float[Tensor, "B H T K"], step: Step) -> Float[Tensor, "B H T K"]:
        return rotate(x, self.value.rotary, *step.rotary(self.value.rotary)) if self.value.rotary else x

    def _decay(self, step: Step) -> Float[Tensor, " H"]:
        """Logarithms; the rates are made once a step."""
        if (key := ("rates", self.value.heads, self.value.rates)) not in step.shared:
            step.shared[key] = torch.tensor(self.value.rate, device=step.device)
        return step.shared[key] * -self.slower

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        value = self.value
        *read, gate = self.project(x)
        q, k, v = (_activated(part, value.activation).unflatten(-1, (value.heads, -1)) for part in read)
        q, k = (part if of is None else of(part) for part, of in ((q, self.q_norm), (k, self.k_norm)))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        q, k = self._turned(q, step), self._turned(k, step)
        q = q if value.scale == 1.0 else q * value.scale
        held = step.layers(self.slot).held(self, step)
        g = self._decay(step)[:, None].expand(v.shape[:3])
        out, *held.kept = linear_attention(q, k, v, g, *held.kept, lengths=step.padding)
        out = out.transpose(1, 2).to(x.dtype).flatten(2)
        grouped = self.norm(out.unflatten(-1, (value.norm_groups, -1)) if value.norm_groups > 1 else out)
        if torch.is_grad_enabled():
            return self.o_proj(grouped.flatten(2) * gate.sigmoid())
        return self.o_proj(gate.sigmoid_().mul_(grouped.flatten(2)))


def _activated(x: Tensor, name: str | None) -> Tensor:
    """In place where no gradient asks what was there: fresh memory costs more than a SiLU."""
    if name == "silu" and not torch.is_grad_enabled():
        return F.silu(x, inplace=True)
    return ACTIVATIONS[name](x) if name else x


reads(LightningAttentionValue, FIELDS, activation=(None, *ACTIVATIONS))
