"""The small parts: projections, norms, activations."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol, overload, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamina.arch.mixers.attention import QKNorm
from lamina.arch.norm import LayerNorm as LayerNormValue
from lamina.arch.norm import Norm as NormValue
from lamina.arch.norm import RMSNorm as RMSNormValue
from lamina.nn.registry import reads
from lamina.ops.linear import FEW, linear, neighbours
from lamina.ops.norm import rms_norm
from lamina.ops.packed import Packed

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
}

reads(RMSNormValue, "eps offset weight weight_first")
reads(LayerNormValue, "eps bias")
reads(QKNorm, "norm over after_rotary own")


@runtime_checkable
class Packable(Protocol):
    """A module that computes with some of its weights, which it names, whatever they are stored as."""

    packable: ClassVar[tuple[str, ...]]


class Linear(nn.Module):
    """A projection, computed with whatever its weight is stored as."""

    packable: ClassVar = ("weight",)
    weight: nn.Parameter | Packed

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.outputs = outputs
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


class Starting(nn.Module):
    """A module some of whose own parameters begin at a number (`starts`, by name) where others begin at random."""

    starts: ClassVar[Mapping[str, float]] = {}


class Part(nn.Module):
    """A module whose projections named in `joined` read the same input: their weights are allocated side by side."""

    joined: ClassVar[tuple[str, ...]] = ()
    _seen: tuple[list[nn.Parameter], int, Tensor | None] = ([], 0, None)

    def project(self, x: Tensor) -> Sequence[Tensor]:
        """Each projection of x; for a few tokens as one product, where the weights are neighbours."""
        parts: list[Linear] = [self._modules[name] for name in self.joined]  # type: ignore[misc]
        many = x.numel() > FEW * x.shape[-1] or torch.is_grad_enabled()
        weights = [part.weight for part in parts if isinstance(part.weight, nn.Parameter)]
        if many or len(weights) < len(parts) or (whole := self._whole(weights)) is None:
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
    """x / rms(x) * (offset + weight); the multiplication first, where the value says so.

    Shapes: x [... D]; with `heads`, each of which has weights of its own, [... H D]
    """

    def __init__(self, value: RMSNormValue, width: int, heads: int = 1) -> None:
        super().__init__()
        self.eps, self.offset, self.heads, self.weight_first = value.eps, value.offset, heads, value.weight_first
        self.weight = nn.Parameter(torch.empty(width)) if value.weight else None

    def forward(self, x: Tensor) -> Tensor:
        if self.weight is None or (self.heads == 1 and not self.weight_first):
            return rms_norm(x, self.weight, self.eps, self.offset)
        weight = (self.offset + self.weight).unflatten(0, (self.heads, -1)).squeeze(0)
        if self.weight_first:
            return rms_norm(x * weight, None, self.eps, self.offset)
        return rms_norm(x, None, self.eps, self.offset) * weight


class LayerNorm(nn.Module):
    """(x - mean) / std * weight + bias, computed in float32.

    Shapes: x [... D]; with `heads`, each of which has weights of its own, [... H D]
    """

    def __init__(self, value: LayerNormValue, width: int, heads: int = 1) -> None:
        super().__init__()
        self.eps, self.heads, self.size = value.eps, heads, (width // heads,)
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width)) if value.bias else None

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.float(), None if self.bias is None else self.bias.float()
        if self.heads == 1:
            return F.layer_norm(x.float(), self.size, weight, bias, self.eps).to(x.dtype)
        out = F.layer_norm(x.float(), self.size, eps=self.eps) * weight.unflatten(0, (self.heads, -1))
        return (out if bias is None else out + bias.unflatten(0, (self.heads, -1))).to(x.dtype)


@overload
def norm(value: NormValue, width: int, heads: int = 1) -> nn.Module: ...
@overload
def norm(value: NormValue | None, width: int, heads: int = 1) -> nn.Module | None: ...
def norm(value: NormValue | None, width: int, heads: int = 1) -> nn.Module | None:
    """The module of a norm value, or nothing where there is none.

    `width` is of all `heads` together where each has weights of its own.
    """
    if value is None:
        return None
    if isinstance(value, RMSNormValue):
        return RMSNorm(value, width, heads)
    return LayerNorm(value, width, heads)


def qk_norm(value: QKNorm | None, heads: int, head_dim: int) -> nn.Module | None:
    """The norm of queries, or of keys, that have so many heads; nothing where there is none."""
    if value is None:
        return None
    own = heads if value.own else 1
    return norm(value.norm, head_dim if value.over == "head" and not value.own else heads * head_dim, own)
