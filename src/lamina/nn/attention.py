"""Softmax attention: projections, norms of queries and keys, rotation, and the state's keys and values."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import Attention as AttentionValue
from lamina.nn.basic import Linear, norm
from lamina.nn.state import FullKV, Stateful, WindowKV
from lamina.nn.step import Step
from lamina.ops.attention import attend
from lamina.ops.rotary import rotate


class Attention(Stateful):
    """Attention as its value says. `slot` is where its state stands among the decoder's.

    Shapes: x [B T D] -> [B T D]
    """

    joined = ("q_proj", "k_proj", "v_proj")

    def __init__(self, value: AttentionValue, width: int, slot: int) -> None:
        super().__init__()
        self.value, self.slot = value, slot
        queries, keys = value.heads * value.head_dim, value.kv_heads * value.head_dim
        self.q_proj = Linear(width, queries, value.bias)
        self.k_proj = Linear(width, keys, value.bias)
        self.v_proj = Linear(width, keys, value.bias)
        self.o_proj = Linear(queries, width, value.output_bias)
        self.q_norm = self.k_norm = None
        if value.qk_norm:
            per_head = value.qk_norm.over == "head"
            self.q_norm = norm(value.qk_norm.norm, value.head_dim if per_head else queries)
            self.k_norm = norm(value.qk_norm.norm, value.head_dim if per_head else keys)
        self.scale = value.scale or value.head_dim**-0.5

    def state(self, batch: int, capacity: int, **like: Any) -> FullKV | WindowKV:
        value = self.value
        if value.window is None:
            return FullKV(batch, value.kv_heads, capacity, value.head_dim, **like)
        return WindowKV(batch, value.kv_heads, min(value.window, capacity), value.head_dim, **like)

    def _heads(self, x: Tensor, normalise: nn.Module | None) -> Float[Tensor, "B H T K"]:
        per_head = self.value.qk_norm is None or self.value.qk_norm.over == "head"
        if normalise and not per_head:
            x = normalise(x)
        x = x.view(*x.shape[:2], -1, self.value.head_dim)
        return (normalise(x) if normalise and per_head else x).transpose(1, 2)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        q, k, v = self.project(x)
        q, k, v = self._heads(q, self.q_norm), self._heads(k, self.k_norm), self._heads(v, None)
        if rotary := self.value.rotary:
            cos, sin = step.rotary(rotary)
            q, k = rotate(q, rotary, cos, sin), rotate(k, rotary, cos, sin)
        k, v, reach = step.layers(self.slot).extend(k, v, self.value.window, step)
        out = attend(q, k, v, reach, self.scale, self.value.softcap)
        return self.o_proj(out.transpose(1, 2).flatten(2))
