"""A gated short convolution: a mixer that sees the last few tokens, between two gates made of its input."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.mixers import ShortConvolution as ShortConvolutionValue
from lamina.nn.basic import Linear
from lamina.nn.convolution import Convolution
from lamina.nn.registry import Place, runs
from lamina.nn.step import Step


@runs(ShortConvolutionValue, "kernel bias")
class ShortConvolution(nn.Module):
    """out(c * convolution(b * u)), the rows of the first projection being those of b, c and u.

    Shapes: x [B T D] -> [B T D]
    Source: arXiv 2511.23404, section 2
    """

    def __init__(self, value: ShortConvolutionValue, width: int, place: Place) -> None:
        super().__init__()
        self.in_proj = Linear(width, 3 * width, value.bias)
        self.convolution = Convolution(width, value.kernel, place, value.bias, silu=False)
        self.o_proj = Linear(width, width, value.bias)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        b, c, u = self.in_proj(x).chunk(3, -1)
        return self.o_proj(c * self.convolution(b * u, step))
