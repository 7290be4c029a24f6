"""Attention to a memory: image states that the caller gives once."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import CrossAttention as CrossAttentionValue
from lamina.nn.basic import Linear, qk_norm
from lamina.nn.registry import Place, runs
from lamina.nn.state import MemoryKV, Stateful
from lamina.nn.step import Step
from lamina.ops.attention import dense


@runs(CrossAttentionValue, "heads kv_heads head_dim memory_width qk_norm")
class CrossAttention(Stateful):
    """Keys and values come from the memory, and stay in the state.

    Shapes: x [B T D] -> [B T D]; step.memory [B M memory_width]; step.memory_mask [B T M], True where seen
    Differs: a token that sees nothing attends to everything here, as in the reference; what its block then
    adds is zeroed in the feed-forward (`Branch.attended_only`).
    """

    def __init__(self, value: CrossAttentionValue, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        queries, keys = value.heads * value.head_dim, value.kv_heads * value.head_dim
        self.q_proj = Linear(width, queries)
        self.k_proj = Linear(value.memory_width, keys)
        self.v_proj = Linear(value.memory_width, keys)
        self.o_proj = Linear(queries, width)
        self.q_norm = qk_norm(value.qk_norm, value.heads, value.head_dim)
        self.k_norm = qk_norm(value.qk_norm, value.kv_heads, value.head_dim)

    def state(self, batch: int, capacity: int, **like: Any) -> MemoryKV:
        return MemoryKV()

    def _heads(self, x: Tensor, normalise: nn.Module | None) -> Float[Tensor, "B H T K"]:
        x = x.unflatten(-1, (-1, self.value.head_dim))
        return (normalise(x) if normalise else x).transpose(1, 2)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        k = v = None
        if step.memory is not None:
            k, v = (
                self._heads(self.k_proj(step.memory), self.k_norm),
                self._heads(self.v_proj(step.memory), None),
            )
        k, v = step.layers(self.slot).memory(k, v)
        q = self._heads(self.q_proj(x), self.q_norm)
        mask = None
        if step.memory_mask is not None:
            seen = step.memory_mask.bool()
            mask = torch.where(seen.any(-1, keepdim=True), seen, True)[:, None]
        out = dense(q, k, v, mask, False, self.value.head_dim**-0.5)
        return self.o_proj(out.transpose(1, 2).flatten(2))
