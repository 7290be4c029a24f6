"""Softmax attention that knows positions by a learned vector of each distance, not by rotation."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import RelativeAttention as Value
from lamina.arch.mixers.relative_attention import LengthClip
from lamina.nn.basic import Linear, Starting, norm, qk_norm
from lamina.nn.registry import Place, reads, runs
from lamina.nn.short_filter import ShortFilter
from lamina.nn.state import FullCache, Stateful, WindowCache, cache
from lamina.nn.step import Step
from lamina.ops.attention import attend
from lamina.ops.relative import Distances

FIELDS = """heads kv_heads head_dim relative_dim extent window scale filter qk_norm clip value_norm temperature gate
sinks"""
reads(LengthClip, "limit relative")


def clipped(x: Float[Tensor, "*B K"], limit: float, scale: Tensor | None = None) -> Float[Tensor, "*B K"]:
    """x, or x times `scale`, no longer than `limit`."""
    long = x.float() if scale is None else x.float() * scale.float().view(x.shape[-2:])
    return (long * (limit / (long.norm(dim=-1, keepdim=True) + 1e-6)).clamp(max=1.0)).to(x.dtype)


@runs(Value, FIELDS)
class RelativeAttention(Stateful, Starting):
    """Attention as its value says: scale q . k, and what the query's relative state makes of the distance.

    Shapes: x [B T D] -> [B T D]
    """

    joined = ("q_proj", "k_proj", "v_proj", "relative_proj")
    starts: ClassVar = {"q_scale": 1.0, "relative_scale": 1.0}

    def __init__(self, value: Value, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        q, kv, r = value.heads * value.head_dim, value.kv_heads * value.head_dim, value.heads * value.relative_dim
        self.q_proj, self.k_proj, self.v_proj = Linear(width, q), Linear(width, kv), Linear(width, kv)
        self.relative_proj, self.o_proj = Linear(width, r), Linear(q, width)
        self.distances = nn.Parameter(torch.empty(value.relative_dim, value.extent))
        for name in ("k_filter", "v_filter"):
            self.add_module(name, ShortFilter(value.filter, kv, width, place) if value.filter else None)
        self.q_norm = qk_norm(value.qk_norm, value.heads, value.head_dim)
        self.k_norm = qk_norm(value.qk_norm, value.kv_heads, value.head_dim)
        self.v_norm = norm(value.value_norm, value.head_dim)
        self.q_scale = nn.Parameter(torch.empty(q)) if value.clip else None
        self.relative_scale = nn.Parameter(torch.empty(r)) if value.clip else None
        self.gate_proj = Linear(width, q) if value.gate else None
        self.sink_proj = Linear(width, value.heads) if value.sinks else None

    def state(self, batch: int, capacity: int, **like: Any) -> FullCache | WindowCache:
        size = self.value.kv_heads, self.value.head_dim
        return cache(batch, capacity, size, size, window=self.value.window, **like)

    def _heads(self, x: Float[Tensor, "B T HK"]) -> Float[Tensor, "B T H K"]:
        return x.unflatten(-1, (-1, self.value.head_dim))

    def _normed(self, x: Float[Tensor, "B T HK"], normalise: nn.Module | None) -> Float[Tensor, "B T H K"]:
        """Queries or keys as heads, after their norm, if they have one."""
        if normalise is None or self.value.qk_norm is None:
            return self._heads(x)
        return self._heads(normalise(x)) if self.value.qk_norm.over == "width" else normalise(self._heads(x))

    def _filtered(self, name: str, projected: Tensor, x: Tensor, step: Step) -> Tensor:
        chosen = self._modules[name]
        return projected if chosen is None else chosen(projected, x, step)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        step: Step,
        keys: Float[Tensor, "B T D"] | None = None,
        values: Float[Tensor, "B T D"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """`keys` and `values` are what those are made of, where that is not x."""
        value = self.value
        if keys is None or values is None:
            keys = values = x
            q, k, v, r = self.project(x)
        else:
            q, k, v, r = self.q_proj(x), self.k_proj(keys), self.v_proj(values), self.relative_proj(x)
        q, k = self._normed(q, self.q_norm), self._normed(self._filtered("k_filter", k, keys, step), self.k_norm)
        v, r = self._heads(self._filtered("v_filter", v, values, step)), r.unflatten(-1, (value.heads, -1))
        v = v if self.v_norm is None else self.v_norm(v)
        if clip := value.clip:
            q, k = clipped(q, clip.limit, self.q_scale), clipped(k, clip.limit)
            r = clipped(r, clip.relative, self.relative_scale)
        q, k, v, r = (part.transpose(1, 2) for part in (q, k, v, r))
        factor = None
        if temperature := value.temperature:
            factor = step.temperature(temperature)
            if temperature.of == "queries":
                q, r, factor = q * factor, r * factor, None
        (k, v), reach = step.layers(self.slot).extend((k, v), step, value.window)
        far = Distances(r, self.distances, step.positions, step.held(reach, k.shape[2], chunked=False))
        sinks = None if self.sink_proj is None else self.sink_proj(x).transpose(1, 2)
        scale = value.scale or value.head_dim**-0.5
        out = attend(q, k, v, reach, scale, None, sinks, factor, far).transpose(1, 2).flatten(2)
        return self.o_proj(out if self.gate_proj is None else out * self.gate_proj(x).sigmoid())
