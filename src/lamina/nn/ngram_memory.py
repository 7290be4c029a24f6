"""A memory of the last few tokens together, found by a hash, that residual streams are added."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from lamina.arch.ngram_memory import NgramMemory as NgramMemoryValue
from lamina.arch.ngram_memory import factors
from lamina.nn.basic import Linear, norm
from lamina.nn.registry import Place, reads
from lamina.nn.short_filter import Tail, Taps
from lamina.nn.state import Keeping, Stateful
from lamina.nn.step import Step
from lamina.ops.hashing import earlier, hashed
from lamina.ops.linear import lookup
from lamina.ops.packed import Packed

reads(NgramMemoryValue, "blocks width longest tables rows multiple kernel seed end norm")


class NgramState(Keeping):
    """The last inputs of the convolution, and the last tokens."""

    def __init__(self, inputs: Tail, tokens: Tail) -> None:
        self.inputs, self.tokens = inputs, tokens

    @property
    def nbytes(self) -> int:
        return self.inputs.nbytes + self.tokens.nbytes

    def snapshot(self, length: int) -> Any:
        return self.inputs.snapshot(length), self.tokens.snapshot(length)

    def restore(self, saved: Any) -> None:
        self.inputs.restore(saved[0])
        self.tokens.restore(saved[1])

    def select(self, rows: Tensor) -> None:
        self.inputs.select(rows)
        self.tokens.select(rows)


class NgramMemory(Stateful):
    """What each of N streams is added: a gated value of the last tokens, and a convolution of such values.

    Shapes: x [B T N D] -> [B T N D]
    """

    packable: ClassVar = ("table",)
    table: nn.Parameter | Packed

    def __init__(self, value: NgramMemoryValue, streams: int, width: int, place: Place) -> None:
        super().__init__()
        nth, every = value.blocks.index(place.block), streams * width
        self.value, self.streams, self.slot = value, streams, place.slot()
        self.sizes = value.sizes(nth)
        self.factors = factors(place.vocab, value.longest, nth, value.seed)
        rows = -(-sum(self.sizes) // value.multiple) * value.multiple
        self.table = nn.Parameter(torch.empty(rows, value.width // value.count))
        self.key_proj, self.value_proj = Linear(value.width, every), Linear(value.width, width)
        self.convolution = Taps(every, value.kernel)
        self.key_norm, self.stream_norm = norm(value.norm, every, streams), norm(value.norm, every, streams)
        self.convolution_norm = norm(value.norm, every, streams)

    def state(self, batch: int, capacity: int, **like: Any) -> NgramState:
        value, channels = self.value, self.convolution.weight.shape[0]
        tokens = Tail(batch, 1, value.longest - 1, **like | {"dtype": torch.int64})
        tokens.kept.fill_(value.end)
        return NgramState(Tail(batch, channels, (value.kernel - 1) * value.longest, **like), tokens)

    def forward(self, x: Float[Tensor, "B T N D"], step: Step) -> Float[Tensor, "B T N D"]:
        assert self.key_norm is not None
        assert self.stream_norm is not None
        assert self.convolution_norm is not None
        state: NgramState = step.layers(self.slot).held(self, step)
        e = lookup(self._rows(step, state), self.table).flatten(-2)
        keys = self.key_norm(self.key_proj(e).unflatten(-1, (self.streams, -1)))
        score = (keys * self.stream_norm(x)).sum(-1, keepdim=True) / x.shape[-1] ** 0.5
        gate = (score.abs().clamp(min=1e-6).sqrt() * score.sign()).sigmoid()
        gated = gate * self.value_proj(e)[..., None, :]
        every = state.inputs.extend(self.convolution_norm(gated).flatten(-2), step)
        weight, apart = self.convolution.weight, self.value.longest
        return x + gated + F.silu(F.conv1d(every, weight, groups=len(weight), dilation=apart).mT).view_as(gated)

    def _rows(self, step: Step, state: NgramState) -> Int[Tensor, "B T n"]:
        """The row of each table, of which those of all lengths lie one after the other."""
        tokens = state.tokens.extend(step.ids[..., None].long(), step)[:, 0]
        return hashed(earlier(tokens, step.tokens, self.value.end), self.factors, self.sizes)


def memory_before(value: NgramMemoryValue | None, streams: int, width: int, place: Place) -> NgramMemory | None:
    """What stands before the branches of a block, if the memory is read there."""
    return NgramMemory(value, streams, width, place) if value and place.block in value.blocks else None
