"""AltUp: several streams of which a block computes one, and the others follow it by learned rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.block import Block
from lamina.arch.per_layer import PerLayerInput
from lamina.arch.streams import AltUp as AltUpValue
from lamina.nn.basic import Linear, Starting, norm
from lamina.nn.registry import reads
from lamina.nn.step import Step

reads(AltUpValue, "count active norm output_scale clip")


class Inner(Protocol):
    """A residual branch: called, x plus what its op gives; `given` is that alone."""

    def __call__(self, x: Tensor, step: Step) -> Tensor: ...
    def given(self, x: Tensor, step: Step) -> Tensor: ...


class Maps(nn.Module):
    """A map for each stream but the first.

    Shapes: x [B T D] -> [B T N D] when `entering`; [B T N D] -> [B T D] otherwise
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.maps = nn.ModuleDict({str(i): Linear(width, width) for i in range(1, count)})

    def as_long(self, streams: Sequence[Float[Tensor, "B T D"]]) -> Float[Tensor, "B T N D"]:
        """The first as it is, and maps of the others, each made as long as it."""
        first, *others = streams
        length = first.square().mean(-1, keepdim=True).sqrt()
        mapped = [first]
        for one, layer in zip(others, self.maps.values(), strict=True):
            y = layer(one)
            mapped.append(y * length / y.square().mean(-1, keepdim=True).clamp(min=1e-5).sqrt())
        return torch.stack(mapped, -2)


class Entering(Maps):
    """The embedding, and maps of it as long as it is.

    Shapes: x [B T D] -> [B T N D]
    """

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T N D"]:
        return self.as_long([x] * (len(self.maps) + 1))


class Joining(Maps):
    """The mean of the first stream and maps of the others as long as it is.

    Shapes: x [B T N D] -> [B T D]
    """

    def forward(self, x: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T D"]:
        return self.as_long(x.unbind(-2)).mean(-2)


class AltUp(Starting):
    """Around a block: every stream is predicted, the branches compute the active one, and all are corrected by it.

    What per-layer inputs give is added to all streams but the first.
    Shapes: x [B T N D] -> [B T N D]
    Source: arXiv 2301.13310, algorithm 1
    """

    starts: ClassVar = {"output_scale": 1.0}

    def __init__(self, value: AltUpValue, width: int, block: Block) -> None:
        super().__init__()
        n, self.value, self.width = value.count, value, width
        self.norm, self.router = norm(value.norm, width), Linear(width, n)
        self.predict, self.correct = Linear(n, n * n), Linear(n, n)
        self.output_scale = nn.Parameter(torch.empty(width)) if value.output_scale else None
        self.beside = [isinstance(branch.op, PerLayerInput) for branch in block.branches]

    def forward(self, x: Float[Tensor, "B T N D"], branches: Sequence[Inner], step: Step) -> Float[Tensor, "B T N D"]:
        n, active = self.value.count, self.value.active
        rules = self._rules(self.predict, x[..., active, :]).unflatten(-1, (n, n))
        predicted = x + rules @ x
        computed = predicted[..., active, :]
        for branch, beside in zip(branches, self.beside, strict=True):
            computed = computed if beside else branch(computed, step)
        rules = self._rules(self.correct, computed) + 1.0
        x = predicted + rules[..., None] @ (computed - predicted[..., active, :])[..., None, :]
        for branch, beside in zip(branches, self.beside, strict=True):
            if beside:
                read = x[..., active, :] if self.output_scale is None else x[..., active, :] * self.output_scale
                x = torch.cat([x[..., :1, :], x[..., 1:, :] + branch.given(read, step)[..., None, :]], -2)
        return x

    def _rules(self, layer: Linear, x: Float[Tensor, "B T D"]) -> Tensor:
        """What a layer makes of the router's opinion of x; in training its weights are bounded."""
        assert self.norm is not None
        known = torch.tanh(self.router(self.norm(x) / self.width).float()).to(x.dtype)
        if self.training and self.value.clip is not None and isinstance(layer.weight, Tensor):
            return F.linear(known, layer.weight.clamp(-self.value.clip, self.value.clip))
        return layer(known)
