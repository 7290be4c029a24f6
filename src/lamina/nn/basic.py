"""The small parts: projections, norms, activations."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamina.arch.norm import LayerNorm as LayerNormValue
from lamina.arch.norm import Norm as NormValue
from lamina.arch.norm import RMSNorm as RMSNormValue
from lamina.ops.linear import FEW, linear, neighbours
from lamina.ops.norm import rms_norm

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
}


class Linear(nn.Module):
    """A projection, computed with whatever its weight is stored as."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.outputs = outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Part(nn.Module):
    """A module whose projections named in `joined` read the same input: their weights are allocated side by side."""

    joined: ClassVar[tuple[str, ...]] = ()
    _seen: tuple[list[nn.Parameter], int, Tensor | None] = ([], 0, None)

    def project(self, x: Tensor) -> Sequence[Tensor]:
        """Each projection of x; for a few tokens as one product, where the weights are neighbours."""
        parts: list[Linear] = [self._modules[name] for name in self.joined]  # type: ignore[misc]
        many = x.numel() > FEW * x.shape[-1] or torch.is_grad_enabled()
        if many or (whole := self._whole([part.weight for part in parts])) is None:
            return [part(x) for part in parts]
        out = linear(x, whole).split([part.outputs for part in parts], -1)
        return [y if part.bias is None else y + part.bias for y, part in zip(out, parts, strict=True)]

    def _whole(self, weights: list[nn.Parameter]) -> Tensor | None:
        """The weights as one tensor, worked out anew when one of them is another or has moved."""
        seen, place, whole = self._seen
        if len(seen) != len(weights) or weights[0].data_ptr() != place or any(map(operator.is_not, seen, weights)):
            whole = neighbours(weights)
            self._seen = weights, weights[0].data_ptr(), whole
        return whole


class RMSNorm(nn.Module):
    """x / rms(x) * (offset + weight)."""

    def __init__(self, value: RMSNormValue, width: int) -> None:
        super().__init__()
        self.eps, self.offset = value.eps, value.offset
        self.weight = nn.Parameter(torch.empty(width)) if value.weight else None

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps, self.offset)


class LayerNorm(nn.Module):
    """(x - mean) / std * weight + bias, computed in float32."""

    def __init__(self, value: LayerNormValue, width: int) -> None:
        super().__init__()
        self.eps, self.width = value.eps, width
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width)) if value.bias else None

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(x.float(), (self.width,), self.weight.float(), bias, self.eps).to(x.dtype)


def norm(value: NormValue | None, width: int) -> nn.Module | None:
    """The module of a norm value, or nothing where there is none."""
    if value is None:
        return None
    return RMSNorm(value, width) if isinstance(value, RMSNormValue) else LayerNorm(value, width)
