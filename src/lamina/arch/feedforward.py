"""Feed-forward parts: what a block does to each token alone."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from lamina.arch.base import Op

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]


class FeedForward(Op):
    @property
    def role(self) -> str:
        return "feed_forward"


class MLP(FeedForward):
    """down(act(up(x))): two matrices, of inner width F."""

    kind: Literal["mlp"] = "mlp"
    inner: PositiveInt
    activation: Activation = "gelu_tanh"
    bias: bool = False

    def parameters(self, width: int) -> int:
        return 2 * width * self.inner + (self.inner + width if self.bias else 0)

    def flops(self, width: int, tokens: int, context: int, memory: int = 0, causal: bool = True) -> int:
        return tokens * 4 * width * self.inner


class GLU(FeedForward):
    """down(act(gate(x)) * up(x)): three matrices, of inner width F. SwiGLU when the activation is SiLU.

    Source: arXiv 2002.05202.
    """

    kind: Literal["glu"] = "glu"
    inner: PositiveInt
    activation: Activation = "silu"
    bias: bool = False

    def parameters(self, width: int) -> int:
        return 3 * width * self.inner + (2 * self.inner + width if self.bias else 0)

    def flops(self, width: int, tokens: int, context: int, memory: int = 0, causal: bool = True) -> int:
        return tokens * 6 * width * self.inner
