"""Softmax attention: projections, norms of queries and keys, rotation, and the state's keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import Attention as AttentionValue
from lamina.arch.mixers.attention import LengthTemperature
from lamina.nn.basic import Linear, norm, qk_norm
from lamina.nn.block_indexer import head_indexer
from lamina.nn.registry import Place, reads, runs
from lamina.nn.state import FullCache, Stateful, WindowCache, cache
from lamina.nn.step import Step
from lamina.ops.attention import Reach, attend
from lamina.ops.rotary import rotate
from lamina.ops.sparse import attend_sparse

FIELDS = """heads kv_heads head_dim rotary qk_norm window softcap scale bias output_bias chunk value_dim gate sinks
temperature value_norm keys_as_values kv_from value_scale gate_activation output_norm blocks"""
GATES = {"sigmoid": torch.sigmoid, "softplus": F.softplus}

reads(LengthTemperature, "floor scale first steps of")


@runs(AttentionValue, FIELDS)
class Attention(Stateful):
    """Attention as its value says.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: AttentionValue, width: int, place: Place) -> None:
        super().__init__()
        self.value = value
        out = value.heads * value.values
        keys, values = value.kv_heads * value.head_dim, value.kv_heads * value.values
        self.q_proj = Linear(width, value.heads * value.head_dim, value.bias)
        self.own = value.kv_from is None
        if value.kv_from is None:
            self.slot = place.slot()
            self.k_proj = Linear(width, keys, value.bias)
            if not value.keys_as_values:
                self.v_proj = Linear(width, values, value.bias)
            self.v_norm = norm(value.value_norm, value.values)
        else:
            self.slot = place.borrowed(value.kv_from)
        self.lent = place.lent
        self.indexer = head_indexer(value.blocks, width, place) if value.blocks else None
        self.o_proj = Linear(out, width, value.output_bias)
        self.gate_proj = Linear(width, out if value.gate == "elementwise" else value.heads) if value.gate else None
        self.sinks = nn.Parameter(torch.empty(value.heads)) if value.sinks else None
        self.q_norm = qk_norm(value.qk_norm, value.heads, value.head_dim)
        self.k_norm = qk_norm(value.qk_norm, value.kv_heads, value.head_dim) if self.own else None
        self.o_norm = norm(value.output_norm, value.values)
        self.scale = value.scale or value.head_dim**-0.5

    @property
    def joined(self) -> tuple[str, ...]:  # type: ignore[override]
        """The projections of the input that there are."""
        return tuple(name for name in ("q_proj", "k_proj", "v_proj") if name in self._modules)

    def state(self, batch: int, capacity: int, **like: Any) -> FullCache | WindowCache:
        value = self.value
        keys, values = (value.kv_heads, value.head_dim), (value.kv_heads, value.values)
        sizes = (keys,) if value.keys_as_values else (keys, values)
        return cache(batch, capacity, *sizes, window=value.window, chunk=value.chunk, **like)

    def _turned(
        self, x: Float[Tensor, "B T HK"], normalise: nn.Module | None, angles: tuple[Tensor, Tensor] | None
    ) -> Float[Tensor, "B H T K"]:
        """Queries or keys as heads: normalised and rotated, in the order that the value says."""
        chosen, rotary = self.value.qk_norm, self.value.rotary
        if normalise and chosen and chosen.over == "width" and not chosen.after_rotary:
            x = normalise(x)
        x = x.unflatten(-1, (-1, self.value.head_dim))
        if normalise and chosen and chosen.over == "head" and not chosen.after_rotary:
            x = normalise(x)
        if rotary and angles:
            x = rotate(x.transpose(1, 2), rotary, *angles).transpose(1, 2)
        if normalise and chosen and chosen.after_rotary:
            x = normalise(x) if chosen.over == "head" else normalise(x.flatten(2)).view_as(x)
        return x.transpose(1, 2)

    def _angles(self, step: Step) -> tuple[Tensor, Tensor] | None:
        return step.rotary(self.value.rotary) if self.value.rotary else None

    def _heads(self, x: Float[Tensor, "B T GK"]) -> Float[Tensor, "B G T K"]:
        return x.unflatten(-1, (-1, self.value.head_dim)).transpose(1, 2)

    def _from_one(self, both: Float[Tensor, "B G S K"], reach: Reach, step: Step) -> tuple[Tensor, Tensor]:
        """Keys and values from what is kept in place of both: the projection, before it is normalised or rotated."""
        value, flat = self.value, both.transpose(1, 2).flatten(2)
        angles = None
        if value.rotary:
            angles = step.held_rotary(value.rotary, reach, both.shape[2], value.window, value.chunk)
        return self._turned(flat, self.k_norm, angles), self._values(flat)

    def _values(self, v: Float[Tensor, "B T GV"]) -> Float[Tensor, "B G T V"]:
        v = v.unflatten(-1, (-1, self.value.values))
        if self.v_norm is not None:
            v = self.v_norm(v)
        return (v if self.value.value_scale == 1.0 else v * self.value.value_scale).transpose(1, 2)

    def _kept(self, projected: Sequence[Tensor], step: Step) -> tuple[Tensor, Tensor, Reach]:
        """All keys and values that are read, and who sees what: its own, or those that an earlier block left."""
        if not self.own:
            return step.shared["kv", self.slot]
        state, seen, chunk = step.layers(self.slot), self.value.window or self.value.chunk, self.value.chunk
        if self.value.keys_as_values:
            both, reach = state.extend((self._heads(projected[0]),), step, seen, chunk)
            k, v = self._from_one(both[0], reach, step)
        else:
            k, v = self._turned(projected[0], self.k_norm, self._angles(step)), self._values(projected[1])
            (k, v), reach = state.extend((k, v), step, seen, chunk)
        if self.slot in self.lent:
            step.shared["kv", self.slot] = k, v, reach
        return k, v, reach

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        q, *made = self.project(x)
        q = self._turned(q, self.q_norm, self._angles(step))
        k, v, reach = self._kept(made, step)
        factor = None
        if temperature := self.value.temperature:
            factor = step.temperature(temperature)
            if temperature.of == "queries":
                q, factor = q * factor, None
        rest = self.scale, self.value.softcap, self.sinks, factor
        if self.indexer is None:
            out = attend(q, k, v, reach, *rest).transpose(1, 2)  # [B T H V]
        else:
            out = attend_sparse(q, k, v, reach, self.indexer(x, step), *rest).transpose(1, 2)
        if self.o_norm is not None:
            out = self.o_norm(out)
        if self.gate_proj is not None:
            gate = GATES[self.value.gate_activation](self.gate_proj(x))
            out = out * (gate.view_as(out) if self.value.gate == "elementwise" else gate[..., None])
        return self.o_proj(out.flatten(2))
