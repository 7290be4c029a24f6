"""Feed-forward parts: what a block does to each token alone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from lamina.arch.base import Node, Op
from lamina.arch.measure import Shape, Work, linear, matrices

Activation = Literal["silu", "gelu", "gelu_tanh", "quick_gelu", "relu", "relu2", "xielu"]
"""`quick_gelu` is x sigmoid(1.702 x)."""


def learned(activation: Activation) -> dict[str, Shape]:
    """What an activation learns: nothing, but for xIELU, whose two halves each have a slope (arXiv 2411.13010)."""
    return {"activation.positive": (1,), "activation.negative": (1,)} if activation == "xielu" else {}


class Clamp(Node):
    """What holds a GLU in bounds: gate <= `limit`, |up| <= `limit`; then (up + `shift`) * gate * sigmoid(`slope` gate).

    With `after`, it is the activated gate that must not exceed the limit (Step 3.5).
    Source: arXiv 2508.10925 (gpt-oss).
    """

    limit: PositiveFloat
    shift: float = 0.0
    slope: PositiveFloat = 1.0
    after: bool = False


class Squash(Node):
    """What holds a GLU in bounds smoothly: `gate` tanh(gate / `gate`) sigmoid(gate), times `up` tanh(up / `up`).

    Source: arXiv 2607.24653, eq. 12 (SiTU, Kimi K3). Without an `up`, that side is as it is.
    """

    gate: PositiveFloat
    up: PositiveFloat | None = None


class FeedForward(Op):
    @property
    def role(self) -> str:
        return "feed_forward"

    def work(self, width: int, memory: int = 0, decoding: bool = False) -> Work:
        return Work(2 * matrices(self.weights(width)))


class MLP(FeedForward):
    """down(act(up(x))): two matrices, of inner width F."""

    kind: Literal["mlp"] = "mlp"
    inner: PositiveInt
    activation: Activation = "gelu_tanh"
    bias: bool = False

    def weights(self, width: int) -> dict[str, Shape]:
        up, down = (self.inner, width), (width, self.inner)
        named = linear("up_proj", *up, self.bias) | linear("down_proj", *down, self.bias)
        return named | learned(self.activation)

    def saved(self, width: int) -> int:
        return width + 2 * self.inner  # x, up(x), act(up(x))


class GLU(FeedForward):
    """down(act(m gate(x)) * up(x)): three matrices, of inner width F. SwiGLU when the activation is SiLU.

    The `gate_multiplier` m is 1 nearly everywhere (not in Falcon-H1).
    With a `sparsity` s, gate(x) has a cut taken from it, and what is below is zero, before the activation: the
    mean of its F numbers and as many of their standard deviations as a normal variable exceeds with chance 1 - s
    (Gemma 3n).
    Source: arXiv 2002.05202; sparsity: 2506.06644.
    """

    kind: Literal["glu"] = "glu"
    inner: PositiveInt
    activation: Activation = "silu"
    bias: bool = False
    clamp: Clamp | None = None
    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = None
    squash: Squash | None = None
    gate_multiplier: float = 1.0

    def weights(self, width: int) -> dict[str, Shape]:
        up, down = (self.inner, width), (width, self.inner)
        inner = linear("gate_proj", *up, self.bias) | linear("up_proj", *up, self.bias)
        return inner | linear("down_proj", *down, self.bias) | learned(self.activation)

    def saved(self, width: int) -> int:
        return width + 4 * self.inner  # x, gate(x), up(x), act(gate(x)), their product
