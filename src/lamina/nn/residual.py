"""What a branch's output is added to, where that is not the stream as it came."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch import residual as value
from lamina.nn.basic import Linear, Starting, norm
from lamina.nn.registry import reads

reads(value.ScaledResidual, "scale normed")
reads(value.AffineResidual)
reads(value.LayerScale)
reads(value.GatedResidual, "temperature floor")
reads(value.LaurelResidual, "rank norm")


class Residual(Starting):
    """What takes the place of x + out.

    Shapes: x, out, z [B T D] -> [B T D], z being what the op read
    """

    def __init__(self, value: value.Residual, width: int) -> None:
        super().__init__()

    def forward(
        self, x: Float[Tensor, "B T D"], out: Float[Tensor, "B T D"], z: Float[Tensor, "B T D"]
    ) -> Float[Tensor, "B T D"]:
        raise TypeError(f"{type(self).__name__} does not say what it adds")


class ScaledResidual(Residual):
    """scale * x + out; with `normed`, scale * z + out. Source: arXiv 2203.00555, section 3."""

    def __init__(self, value: value.ScaledResidual, width: int) -> None:
        super().__init__(value, width)
        self.value = value

    def forward(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor:
        return (z if self.value.normed else x) * self.value.scale + out


class AffineResidual(Residual):
    """(x + b) * s + (out + c) * t, with b, s, c and t learned vectors. Source: arXiv 2511.17127."""

    starts: ClassVar = {"stream_bias": 0.0, "stream_scale": 1.0, "output_bias": 0.0, "output_scale": 1.0}

    def __init__(self, value: value.AffineResidual, width: int) -> None:
        super().__init__(value, width)
        self.stream_bias, self.stream_scale = (nn.Parameter(torch.empty(width)) for _ in range(2))
        self.output_bias, self.output_scale = (nn.Parameter(torch.empty(width)) for _ in range(2))

    def forward(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor:
        return (x + self.stream_bias) * self.stream_scale + (out + self.output_bias) * self.output_scale


class LayerScale(Residual):
    """x + s * out, with s a learned vector. Source: arXiv 2103.17239, eq. 4."""

    starts: ClassVar = {"scale": 1.0}

    def __init__(self, value: value.LayerScale, width: int) -> None:
        super().__init__(value, width)
        self.scale = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor:
        return x + out * self.scale


class GatedResidual(Residual):
    """a * x + b * out, with b = sigmoid(w / temperature), w learned, and a = sqrt(max(1 - b^2, floor))."""

    def __init__(self, value: value.GatedResidual, width: int) -> None:
        super().__init__(value, width)
        self.value = value
        self.gate = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor:
        score = self.gate.float() / self.value.temperature
        taken = score.sigmoid()
        kept = ((-score).sigmoid() * (1.0 + taken)).clamp(min=self.value.floor).sqrt()
        return kept.to(x.dtype) * x + taken.to(x.dtype) * out


class LaurelResidual(Residual):
    """(x + out + z + norm(W_2 W_1 z)) / sqrt(2). Source: arXiv 2411.07501, section 2 (LAuReL-LR)."""

    def __init__(self, value: value.LaurelResidual, width: int) -> None:
        super().__init__(value, width)
        self.down_proj, self.up_proj = Linear(width, value.rank), Linear(value.rank, width)
        self.norm = norm(value.norm, width)

    def forward(self, x: Tensor, out: Tensor, z: Tensor) -> Tensor:
        assert self.norm is not None
        return (x + out + (z + self.norm(self.up_proj(self.down_proj(z))))) / math.sqrt(2.0)


RESIDUALS: dict[type[value.Residual], type[Residual]] = {
    value.ScaledResidual: ScaledResidual,
    value.AffineResidual: AffineResidual,
    value.LayerScale: LayerScale,
    value.GatedResidual: GatedResidual,
    value.LaurelResidual: LaurelResidual,
}


def residual(chosen: value.Residual | None, width: int) -> Residual | None:
    """The module of a residual value, or nothing where out is added to x."""
    return None if chosen is None else RESIDUALS[type(chosen)](chosen, width)
