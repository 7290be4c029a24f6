"""Temperatures of attention that are learned."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers.latent_attention import LearnedTemperature
from lamina.nn.registry import reads
from lamina.nn.step import Step

reads(LearnedTemperature)


class Temperature(nn.Module):
    """What the queries of head h at position p are multiplied by: scale_h ln(p + 1) + bias_h.

    Shapes: -> [1|B H T 1]
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.empty(heads)), nn.Parameter(torch.empty(heads))

    def forward(self, step: Step) -> Float[Tensor, "_ H T 1"]:
        grown = torch.log1p(step.positions.float()).to(self.scale.dtype)[:, None, :, None]
        return self.scale[:, None, None] * grown + self.bias[:, None, None]
