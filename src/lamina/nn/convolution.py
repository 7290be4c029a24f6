"""The short convolution that recurrent mixers pass their inputs through, and what it keeps: the last inputs."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.nn.registry import Place
from lamina.nn.short_filter import Tail
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.ops.short_convolution import short_convolution


class Convolution(Stateful):
    """A causal convolution of each channel over the last `kernel` tokens, and a SiLU unless `silu` is False.

    Shapes: x [B T C] -> [B T C]
    """

    def __init__(self, channels: int, kernel: int, place: Place, bias: bool = False, silu: bool = True) -> None:
        super().__init__()
        self.slot, self.silu = place.slot(), silu
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel))
        self.bias = nn.Parameter(torch.empty(channels)) if bias else None

    def state(self, batch: int, capacity: int, **like: Any) -> Tail:
        return Tail(batch, len(self.weight), self.weight.shape[2] - 1, **like)

    def forward(self, x: Float[Tensor, "B T C"], step: Step) -> Float[Tensor, "B T C"]:
        before = step.layers(self.slot).held(self, step).advance(x, step)
        return short_convolution(x, before, self.weight, self.bias, self.silu)
