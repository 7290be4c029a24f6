"""Feed-forward parts, and the GLU that works along the sequence."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.feedforward import GLU as GLUValue
from lamina.arch.feedforward import MLP as MLPValue
from lamina.arch.mixers import SequenceGLU as SequenceGLUValue
from lamina.errors import LaminaError
from lamina.nn.basic import ACTIVATIONS, Linear, Part
from lamina.nn.step import Step


class MLP(nn.Module):
    """down(act(up(x))).

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: MLPValue, width: int) -> None:
        super().__init__()
        self.up_proj = Linear(width, value.inner, value.bias)
        self.down_proj = Linear(value.inner, width, value.bias)
        self.activation = ACTIVATIONS[value.activation]

    def forward(self, x: Float[Tensor, "B T D"], step: Step | None = None) -> Float[Tensor, "B T D"]:
        return self.down_proj(self.activation(self.up_proj(x)))


class GLU(Part):
    """down(act(gate(x)) * up(x)).

    Shapes: x [B T D] -> [B T D]
    """

    joined = ("gate_proj", "up_proj")

    def __init__(self, value: GLUValue, width: int) -> None:
        super().__init__()
        self.gate_proj = Linear(width, value.inner, value.bias)
        self.up_proj = Linear(width, value.inner, value.bias)
        self.down_proj = Linear(value.inner, width, value.bias)
        self.activation = ACTIVATIONS[value.activation]

    def forward(self, x: Float[Tensor, "B T D"], step: Step | None = None) -> Float[Tensor, "B T D"]:
        gate, up = self.project(x)
        return self.down_proj(self.activation(gate) * up)


class SequenceGLU(nn.Module):
    """A GLU whose width is the sequence: it mixes tokens, each channel alike.

    Shapes: x [B T D] -> [B T D], T fixed
    Raises: LaminaError for another length than the value's
    """

    along = 1
    """The dimension that it, and a norm joined to it, work along."""

    def __init__(self, value: SequenceGLUValue) -> None:
        super().__init__()
        self.length = value.length
        self.glu = GLU(value.glu, value.length)

    def forward(self, x: Float[Tensor, "B T D"], step: Step | None = None) -> Float[Tensor, "B T D"]:
        if x.shape[1] != self.length:
            raise LaminaError(f"this model works on sequences of {self.length} tokens, not {x.shape[1]}")
        return self.glu(x.transpose(1, 2)).transpose(1, 2)
