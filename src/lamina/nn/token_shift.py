"""The token before: what RWKV's parts read beside their input, and all that they keep of it."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lamina.nn.registry import Place
from lamina.nn.short_filter import Tail
from lamina.nn.state import Stateful
from lamina.nn.step import Step


class TokenShift(Stateful):
    """How far the input of the token before is from each token's own; before the first stand zeros.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, width: int, place: Place) -> None:
        super().__init__()
        self.width, self.slot = width, place.slot()

    def state(self, batch: int, capacity: int, **like: Any) -> Tail:
        return Tail(batch, self.width, 1, **like)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        before = step.layers(self.slot).held(self, step).advance(x, step)
        return torch.cat([before.mT, x[:, :-1]], 1) - x
