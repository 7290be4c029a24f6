"""mLSTM: projections, two gates a head, and a matrix memory that the output is read from."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lamina.arch.mixers import MLSTM as MLSTMValue
from lamina.nn.basic import Linear, norm
from lamina.nn.recurrent import Recurrent
from lamina.nn.registry import Place, runs
from lamina.nn.state import Stateful
from lamina.nn.step import Step
from lamina.ops.mlstm import mlstm


@runs(MLSTMValue, "heads key_dim value_dim softcap eps norm")
class MLSTM(Stateful):
    """A matrix memory with an exponential input gate, as its value says.

    Shapes: x [B T D] -> [B T D]
    """

    joined = ("q_proj", "k_proj", "v_proj", "input_gate_proj", "forget_gate_proj", "gate_proj")

    def __init__(self, value: MLSTMValue, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        keys, values = value.heads * value.key_dim, value.heads * value.value_dim
        self.q_proj, self.k_proj, self.v_proj = Linear(width, keys), Linear(width, keys), Linear(width, values)
        self.input_gate_proj = Linear(width, value.heads, bias=True)
        self.forget_gate_proj = Linear(width, value.heads, bias=True)
        self.gate_proj = Linear(width, values)
        self.norm = norm(value.norm, values, value.heads)
        self.o_proj = Linear(values, width)

    def state(self, batch: int, capacity: int, **like: Any) -> Recurrent:
        heads, keys, values = self.value.heads, self.value.key_dim, self.value.value_dim
        return Recurrent(batch, (heads, keys, values), (heads, keys), (heads,), **like)

    def _capped(self, x: Float[Tensor, "B T H"]) -> Float[Tensor, "B H T"]:
        cap = self.value.softcap
        return (x.float() if cap is None else cap * (x.float() / cap).tanh()).mT

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        q, k, v, i, f, gate = self.project(x)
        q, k, v = (part.unflatten(-1, (self.value.heads, -1)).transpose(1, 2) for part in (q, k, v))
        i, g = self._capped(i), F.logsigmoid(self._capped(f))
        held = step.layers(self.slot).held(self, step)
        out, held.kept = mlstm(q, k, v, g, i, held.kept, eps=self.value.eps, lengths=step.padding)
        out = self.norm(out.transpose(1, 2).to(x.dtype)).flatten(2)
        return self.o_proj(gate.sigmoid() * out)
