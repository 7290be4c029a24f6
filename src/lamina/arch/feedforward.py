"""Feed-forward parts: what a block does to each token alone."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from lamina.arch.base import Node, Op
from lamina.arch.measure import Shape, Work, linear, matrices

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]


class Clamp(Node):
    """What holds a GLU in bounds: gate <= `limit`, |up| <= `limit`; then (up + `shift`) * gate * sigmoid(`slope` gate).

    Source: arXiv 2508.10925 (gpt-oss).
    """

    limit: PositiveFloat
    shift: float = 0.0
    slope: PositiveFloat = 1.0


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
        return linear("up_proj", *up, self.bias) | linear("down_proj", *down, self.bias)

    def saved(self, width: int) -> int:
        return width + 2 * self.inner  # x, up(x), act(up(x))


class GLU(FeedForward):
    """down(act(gate(x)) * up(x)): three matrices, of inner width F. SwiGLU when the activation is SiLU.

    Source: arXiv 2002.05202.
    """

    kind: Literal["glu"] = "glu"
    inner: PositiveInt
    activation: Activation = "silu"
    bias: bool = False
    clamp: Clamp | None = None

    def weights(self, width: int) -> dict[str, Shape]:
        up, down = (self.inner, width), (width, self.inner)
        inner = linear("gate_proj", *up, self.bias) | linear("up_proj", *up, self.bias)
        return inner | linear("down_proj", *down, self.bias)

    def saved(self, width: int) -> int:
        return width + 4 * self.inner  # x, gate(x), up(x), act(gate(x)), their product
