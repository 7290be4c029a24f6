"""A transformer block beside a stack of mixers, whose weights several places share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.feedforward import GLU as GLUValue
from lamina.arch.mixers import Attention as AttentionValue
from lamina.arch.shared_transformer import SharedTransformer as SharedTransformerValue
from lamina.nn.attention import Attention
from lamina.nn.basic import Linear, norm
from lamina.nn.feedforward import GLU
from lamina.nn.registry import Place, runs
from lamina.nn.step import Step


class Adapter(nn.Module):
    """up(down(x)), which is added to a projection that several places share.

    Shapes: x [... I] -> [... O]
    """

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.down, self.up = Linear(inputs, rank), Linear(rank, outputs)

    def forward(self, x: Float[Tensor, "... I"]) -> Float[Tensor, "... O"]:
        return self.up(self.down(x))


class AdaptedAttention(Attention):
    """Attention that gives another width than it reads, with matrices of its own beside its projections.

    Shapes: x [B T I] -> [B T D]
    """

    def __init__(self, value: AttentionValue, inputs: int, width: int, rank: int | None, place: Place) -> None:
        super().__init__(value, inputs, place)
        self.o_proj = Linear(value.heads * value.values, width, value.output_bias)
        keys, values = value.kv_heads * value.head_dim, value.kv_heads * value.values
        sizes = {"q": value.heads * value.head_dim, "k": keys, "v": values} if rank else {}
        self.adapters = nn.ModuleDict({name: Adapter(inputs, size, rank or 0) for name, size in sizes.items()})

    def project(self, x: Tensor) -> Sequence[Tensor]:
        parts = super().project(x)
        if not self.adapters:
            return parts
        return [y + adapter(x) for y, adapter in zip(parts, self.adapters.values(), strict=True)]


class AdaptedGLU(GLU):
    """A GLU with a matrix of its own beside the two projections that it begins with.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: GLUValue, width: int, rank: int | None) -> None:
        super().__init__(value, width)
        self.adapter = Adapter(width, 2 * value.inner, rank) if rank else None

    def project(self, x: Tensor) -> Sequence[Tensor]:
        gate, up = super().project(x)
        if self.adapter is None:
            return gate, up
        more = self.adapter(x).split(self.value.inner, -1)
        return gate + more[0], up + more[1]


def share(mine: nn.Module, theirs: nn.Module, *own: str) -> None:
    """Puts the parts of one module in the place of another's, but for those named."""
    for name, part in theirs.named_children():
        if name not in own:
            mine.add_module(name, part)


@runs(SharedTransformerValue, "attention feed_forward norm attention_rank feed_forward_rank same_as")
class SharedTransformer(nn.Module):
    """o_proj(feed_forward(between(attention(before([x; e]))))), e being what the embedding gave.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: SharedTransformerValue, width: int, place: Place) -> None:
        super().__init__()
        self.before, self.between = norm(value.norm, 2 * width), norm(value.norm, width)
        self.attention = AdaptedAttention(value.attention, 2 * width, width, value.attention_rank, place)
        self.feed_forward = AdaptedGLU(value.feed_forward, width, value.feed_forward_rank)
        self.o_proj = Linear(width, width)
        if value.same_as is None:
            place.transformers[place.block] = self
            return
        other = place.transformers[value.same_as]
        share(self, other, "attention", "feed_forward", "o_proj")
        share(self.attention, other.get_submodule("attention"), "adapters")
        share(self.feed_forward, other.get_submodule("feed_forward"), "adapter")

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        both = self.before(torch.cat([x, step.shared["embedded"]], -1))
        return self.o_proj(self.feed_forward(self.between(self.attention(both, step))))
