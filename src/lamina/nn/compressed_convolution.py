"""Compressed convolutional attention: queries and keys pass two short convolutions; values know the token before.

What is remembered: keys and values, the last inputs of the convolutions, and the last token's delayed values.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import CompressedConvolutionalAttention as Value
from lamina.nn.basic import Linear, Starting
from lamina.nn.registry import Place, runs
from lamina.nn.short_filter import Tail
from lamina.nn.state import FullCache, Stateful, WindowCache, cache
from lamina.nn.step import Step
from lamina.ops.attention import attend
from lamina.ops.linear import linear
from lamina.ops.rotary import rotate


class Last(Stateful):
    """The last `length` inputs before the new ones, zeros before the first.

    Shapes: x [B T C] -> [B C length+T]
    """

    def __init__(self, channels: int, length: int, place: Place) -> None:
        super().__init__()
        self.slot, self.sizes = place.slot(), (channels, length)

    def state(self, batch: int, capacity: int, **like: Any) -> Tail:
        return Tail(batch, *self.sizes, **like)

    def forward(self, x: Float[Tensor, "B T C"], step: Step) -> Float[Tensor, "B C S"]:
        return step.layers(self.slot).held(self, step).extend(x, step)


@runs(Value, "heads kv_heads head_dim rotary window depthwise grouped bias output_bias")
class CompressedConvolutionalAttention(Stateful, Starting):
    """Attention of queries and keys that know the tokens just before, as its value says.

    Shapes: x [B T D] -> [B T D]
    Source: arXiv 2510.04476, section 3; the learned key scale: 2511.17127
    """

    joined = ("q_proj", "k_proj", "v_proj")
    starts: ClassVar = {"key_scale": 1.0}

    def __init__(self, value: Value, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        q, k = value.heads * value.head_dim, value.kv_heads * value.head_dim
        self.q_proj, self.k_proj = Linear(width, q, value.bias), Linear(width, k, value.bias)
        self.v_proj, self.delayed_v_proj = Linear(width, k // 2, value.bias), Linear(width, k // 2, value.bias)
        channels, heads = value.channels, value.heads + value.kv_heads
        self.depthwise = nn.Conv1d(channels, channels, value.depthwise, groups=channels)
        self.grouped = nn.Conv1d(channels, channels, value.grouped, groups=heads)
        self.key_scale = nn.Parameter(torch.empty(value.kv_heads))
        self.o_proj = Linear(q, width, value.output_bias)
        self.projected = Last(value.channels, value.depthwise + value.grouped - 2, place)
        self.delayed = Last(k // 2, 1, place)

    def state(self, batch: int, capacity: int, **like: Any) -> FullCache | WindowCache:
        size = self.value.kv_heads, self.value.head_dim
        return cache(batch, capacity, size, size, window=self.value.window, **like)

    def _heads(self, x: Float[Tensor, "B T HK"]) -> Float[Tensor, "B T H K"]:
        return x.unflatten(-1, (-1, self.value.head_dim))

    def _convolved(self, q: Tensor, k: Tensor, step: Step) -> tuple[Tensor, Tensor]:
        """Queries and keys [B T H K] after the convolutions, with the means of both projections added."""
        seen = self.projected(torch.cat([q, k], -1), step)
        convolved = self._heads(self.grouped(self.depthwise(seen)).mT)
        groups = self.value.heads // self.value.kv_heads
        mean = (self._heads(q) + self._heads(k).repeat_interleave(groups, 2)) * 0.5
        of_queries, of_keys = convolved.split([self.value.heads, self.value.kv_heads], 2)
        return of_queries + mean, of_keys + mean.unflatten(2, (-1, groups)).mean(3)

    def _unit(self, x: Float[Tensor, "B T H K"]) -> Float[Tensor, "B H T K"]:
        """Each head made sqrt(K) long."""
        long = x.norm(dim=-1, keepdim=True).clamp(min=torch.finfo(x.dtype).eps)
        return (x * (self.value.head_dim**0.5 / long)).transpose(1, 2)

    def _values(self, v: Tensor, x: Tensor, step: Step) -> Float[Tensor, "B G T K"]:
        """What v is of the token itself, and the rest of the one before; before the first, of a vector of zeros."""
        before = self.delayed(linear(x, self.delayed_v_proj.weight), step)[:, :, :-1].mT
        bias = self.delayed_v_proj.bias
        return self._heads(torch.cat([v, before if bias is None else before + bias], -1)).transpose(1, 2)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        q, k, v = self.project(x)
        v = self._values(v, x, step)
        q, k = (self._unit(part) for part in self._convolved(q, k, step))
        k = k * self.key_scale[:, None, None]
        if (rotary := self.value.rotary) is not None:
            q, k = (rotate(part, rotary, *step.rotary(rotary)) for part in (q, k))
        (k, v), reach = step.layers(self.slot).extend((k, v), step, self.value.window)
        return self.o_proj(attend(q, k, v, reach, self.value.head_dim**-0.5).transpose(1, 2).flatten(2))
