"""Feed-forward parts, and the GLU that works along the sequence."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.channel_mix import ChannelMix
from lamina.arch.feedforward import GLU as GLUValue
from lamina.arch.feedforward import MLP as MLPValue
from lamina.arch.feedforward import Clamp, Squash
from lamina.arch.mixers import SequenceGLU as SequenceGLUValue
from lamina.errors import LaminaError
from lamina.nn.basic import ACTIVATIONS, Linear, Part, Starting
from lamina.nn.registry import Place, reads, runs
from lamina.nn.step import Step

NORMAL = NormalDist()

reads(Clamp, "limit shift slope after")
reads(Squash, "gate up")


class XIELU(Starting):
    """x (x p + 1/2) above zero, n (e^x - 1 - x) + x / 2 below: p = softplus(positive), n = 1/2 + softplus(negative).

    Shapes: x [... F]; with `experts`, [M F], and `of` [M] says which expert's slopes a row has
    Source: arXiv 2411.13010, eq. 7.
    Differs: the reference takes e^x of no x above -1e-6, for the sake of gradients; here of none above zero.
    """

    starts: ClassVar = {"positive": math.log(math.expm1(0.8)), "negative": math.log(math.expm1(0.3))}

    def __init__(self, *experts: int) -> None:
        super().__init__()
        self.positive = nn.Parameter(torch.empty(*experts, 1))
        self.negative = nn.Parameter(torch.empty(*experts, 1))

    def forward(self, x: Tensor, of: Tensor | None = None) -> Tensor:
        up, down = F.softplus(self.positive), 0.5 + F.softplus(self.negative)
        if of is not None:
            up, down = up[of], down[of]
        below = down * (torch.expm1(x.clamp(max=0.0)) - x)
        return torch.where(x > 0, up * x * x, below) + 0.5 * x


def activation(value: GLUValue | MLPValue | ChannelMix) -> Callable[[Tensor], Tensor]:
    """What a feed-forward does between its projections."""
    return XIELU() if value.activation == "xielu" else ACTIVATIONS[value.activation]


def gated(value: GLUValue, act: Callable[[Tensor], Tensor], gate: Tensor, up: Tensor) -> Tensor:
    """What a GLU makes of its two projections: act(gate) * up, held in bounds as the value says.

    Shapes: gate, up [... F] -> [... F]
    Source: see `lamina.arch.GLU`, `Clamp` and `Squash`.
    """
    if value.gate_multiplier != 1.0:
        gate = gate * value.gate_multiplier
    if value.sparsity is not None:
        spread = gate.std(-1, keepdim=True, unbiased=False)
        gate = F.relu(gate - (gate.mean(-1, keepdim=True) + NORMAL.inv_cdf(value.sparsity) * spread))
    if squash := value.squash:
        gate = squash.gate * torch.tanh(gate / squash.gate) * gate.sigmoid()
        return gate * (up if squash.up is None else squash.up * torch.tanh(up / squash.up))
    if (clamp := value.clamp) is None:
        return act(gate) * up
    up = up.clamp(-clamp.limit, clamp.limit) + clamp.shift
    if clamp.after:
        return act(gate).clamp(max=clamp.limit) * up
    gate = gate.clamp(max=clamp.limit)
    return (act(gate) if clamp.slope == 1.0 else gate * torch.sigmoid(clamp.slope * gate)) * up


@runs(MLPValue, "inner activation bias")
class MLP(nn.Module):
    """down(act(up(x))).

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: MLPValue, width: int, place: Place | None = None) -> None:
        super().__init__()
        self.up_proj = Linear(width, value.inner, value.bias)
        self.down_proj = Linear(value.inner, width, value.bias)
        self.activation = activation(value)

    def inner(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... F"]:
        """What the last projection reads."""
        return self.activation(self.up_proj(x))

    def forward(self, x: Float[Tensor, "B T D"], step: Step | None = None) -> Float[Tensor, "B T D"]:
        return self.down_proj(self.inner(x))


@runs(GLUValue, "inner activation bias clamp sparsity squash gate_multiplier")
class GLU(Part):
    """down(act(gate(x)) * up(x)).

    Shapes: x [B T D] -> [B T D]
    """

    joined = ("gate_proj", "up_proj")

    def __init__(self, value: GLUValue, width: int, place: Place | None = None) -> None:
        super().__init__()
        self.value = value
        self.gate_proj = Linear(width, value.inner, value.bias)
        self.up_proj = Linear(width, value.inner, value.bias)
        self.down_proj = Linear(value.inner, width, value.bias)
        self.activation = activation(value)

    def inner(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... F"]:
        """What the last projection reads."""
        gate, up = self.project(x)
        return gated(self.value, self.activation, gate, up)

    def forward(self, x: Float[Tensor, "B T D"], step: Step | None = None) -> Float[Tensor, "B T D"]:
        return self.down_proj(self.inner(x))


@runs(SequenceGLUValue, "length glu")
class SequenceGLU(nn.Module):
    """A GLU whose width is the sequence: it mixes tokens, each channel alike.

    Shapes: x [B T D] -> [B T D], T fixed
    Raises: LaminaError for another length than the value's
    """

    along = 1
    """The dimension that it, and a norm joined to it, work along."""

    def __init__(self, value: SequenceGLUValue, width: int, place: Place | None = None) -> None:
        super().__init__()
        self.length = value.length
        self.glu = GLU(value.glu, value.length)

    def forward(self, x: Float[Tensor, "B T D"], step: Step | None = None) -> Float[Tensor, "B T D"]:
        if x.shape[1] != self.length:
            raise LaminaError(f"this model works on sequences of {self.length} tokens, not {x.shape[1]}")
        return self.glu(x.transpose(1, 2)).transpose(1, 2)
