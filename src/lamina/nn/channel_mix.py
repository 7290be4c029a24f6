"""RWKV's channel mixing: an MLP of the input mixed with that of the token before."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.channel_mix import ChannelMix as ChannelMixValue
from lamina.nn.basic import Linear, Starting
from lamina.nn.feedforward import activation
from lamina.nn.registry import Place, runs
from lamina.nn.step import Step
from lamina.nn.token_shift import TokenShift


@runs(ChannelMixValue, "inner activation")
class ChannelMix(Starting):
    """down(act(up(x + shift (y - x)))), y being the input of the token before. Shapes: x [B T D] -> [B T D]"""

    starts: ClassVar = {"shift": 0.5}

    def __init__(self, value: ChannelMixValue, width: int, place: Place) -> None:
        super().__init__()
        self.before = TokenShift(width, place)
        self.shift = nn.Parameter(torch.empty(width))
        self.up_proj, self.down_proj = Linear(width, value.inner), Linear(value.inner, width)
        self.activation = activation(value)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        mixed = x + self.before(x, step) * self.shift
        return self.down_proj(self.activation(self.up_proj(mixed)))
