"""sLSTM: four projections of the input, and cells that also read the last output."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import SLSTM as SLSTMValue
from lamina.nn.basic import Linear, norm
from lamina.nn.recurrent import Recurrent
from lamina.nn.registry import Place, runs
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.ops.slstm import slstm


@runs(SLSTMValue, "heads head_dim forget norm")
class SLSTM(Stateful):
    """Cells with an exponential input gate whose gates read the last output, as its value says.

    Shapes: x [B T D] -> [B T D]
    """

    joined = ("z_proj", "input_gate_proj", "forget_gate_proj", "gate_proj")

    def __init__(self, value: SLSTMValue, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        cells = value.heads * value.head_dim
        for name in self.joined:
            self.add_module(name, Linear(width, cells, bias=True))
        self.recurrent = nn.Parameter(torch.empty(4, value.heads, value.head_dim, value.head_dim))
        self.norm = norm(value.norm, cells, value.heads)
        self.o_proj = Linear(cells, width)

    def state(self, batch: int, capacity: int, **like: Any) -> Recurrent:
        return Recurrent(batch, *((self.value.heads, self.value.head_dim),) * 4, **like)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        given = torch.stack([part.unflatten(-1, (self.value.heads, -1)) for part in self.project(x)], 3)
        held = step.layers(self.slot).held(self, step)
        made, kept = given.transpose(1, 2), held.kept
        out, held.kept = slstm(made, kept, weight=self.recurrent, forget=self.value.forget, lengths=step.padding)
        return self.o_proj(self.norm(out.transpose(1, 2).to(x.dtype)).flatten(2))
