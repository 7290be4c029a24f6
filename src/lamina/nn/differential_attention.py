"""Differential attention: projections, two softmax maps a head, and the norm of their difference."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import DifferentialAttention as DifferentialAttentionValue
from lamina.nn.basic import Linear, norm
from lamina.nn.registry import Place, runs
from lamina.nn.state import FullCache, Stateful
from lamina.nn.step import Step
from lamina.ops.differential import attend_differential
from lamina.ops.rotary import rotate


@runs(DifferentialAttentionValue, "heads kv_heads head_dim rotary initial norm bias output_bias")
class DifferentialAttention(Stateful):
    """Attention by the difference of two maps, as its value says.

    Shapes: x [B T D] -> [B T D]; the state holds keys [B 2G S K] of both maps and values [B G S 2K]
    Source: arXiv 2410.05258, section 2.1
    """

    joined = ("q_proj", "k_proj", "v_proj")

    def __init__(self, value: DifferentialAttentionValue, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot, self.initial = value, place.slot(), value.initial_of(place.block)
        q, k = value.heads * value.values, value.kv_heads * value.values
        self.q_proj = Linear(width, q, value.bias)
        self.k_proj, self.v_proj = Linear(width, k, value.bias), Linear(width, k, value.bias)
        self.lambda_q1, self.lambda_k1 = self._vector(), self._vector()
        self.lambda_q2, self.lambda_k2 = self._vector(), self._vector()
        self.norm = norm(value.norm, value.values)
        self.o_proj = Linear(q, width, value.output_bias)

    def _vector(self) -> nn.Parameter:
        return nn.Parameter(torch.empty(self.value.head_dim))

    def state(self, batch: int, capacity: int, **like: Any) -> FullCache:
        value = self.value
        return FullCache(batch, capacity, (2 * value.kv_heads, value.head_dim), (value.kv_heads, value.values), **like)

    def _share(self) -> Float[Tensor, ""]:
        """What the second map is multiplied by."""
        first = (self.lambda_q1.float() * self.lambda_k1.float()).sum().exp()
        second = (self.lambda_q2.float() * self.lambda_k2.float()).sum().exp()
        return first - second + self.initial

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        value = self.value
        q, k, v = self.project(x)
        q, k = (part.unflatten(-1, (-1, value.head_dim)).transpose(1, 2) for part in (q, k))
        if (rotary := value.rotary) is not None:
            q, k = (rotate(part, rotary, *step.rotary(rotary)) for part in (q, k))
        v = v.unflatten(-1, (2, value.kv_heads, value.head_dim)).permute(0, 3, 1, 2, 4).flatten(3)  # [B G T 2K]
        (k, v), reach = step.layers(self.slot).extend((k, v), step)
        out = attend_differential(q, k, v, reach, value.head_dim**-0.5, self._share().to(q.dtype))
        return self.o_proj((self.norm(out.transpose(1, 2)) * (1.0 - self.initial)).flatten(2))
