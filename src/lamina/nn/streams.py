"""The residual stream where it is more than one sum: how the model enters it, branches read and write it, it is left.

A model with a stream has four kinds of parts, each None where there is nothing to do: `entering` makes the streams of
an embedding, `around_branch` gives what a branch reads and where its output goes, `around_block` stands around all
branches of a block, and `joining` makes one vector again for the last norm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch import streams as value
from lamina.arch.block import Block
from lamina.arch.norm import Norm
from lamina.nn.altup import AltUp, Entering, Joining
from lamina.nn.basic import Linear, Starting, norm
from lamina.nn.ngram_memory import NgramMemory, memory_before
from lamina.nn.registry import Place, reads
from lamina.ops.streams import doubly_stochastic

reads(value.HyperConnections, "count iterations magnitude eps norm joining")
reads(value.GatedStreams, "count rank norm memory")
reads(value.AttentionResiduals, "blocks norm scaled normed first separate")

Reading = tuple[Float[Tensor, "B T D"], Callable[[Tensor], Any], *tuple[Tensor, ...]]
"""What a branch reads, what makes the streams after it of what it gives, and what its op reads besides."""


class Exact(nn.Module):
    """A projection computed in float32 whatever the model is computed in; its weights are never packed.

    Shapes: x [... I] -> [... O]
    """

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.float(), self.weight.float(), None if self.bias is None else self.bias.float())


class Copies(nn.Module):
    """N streams, each of them the embedding.

    Shapes: x [B T D] -> [B T N D]
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T N D"]:
        return x[..., None, :].expand(*x.shape[:-1], self.count, x.shape[-1])


class Mean(nn.Module):
    """The mean of the streams.

    Shapes: x [B T N D] -> [B T D]
    """

    def forward(self, x: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T D"]:
        return x.mean(-2)


# -- hyper-connections


class Mixing(Starting):
    """The numbers with which streams are read, written and mixed, from all of them: of `kinds` sizes.

    Shapes: x [B T N D] -> one [B T size] for each kind, float32
    """

    starts: ClassVar = {"scale": 1.0}

    def __init__(self, value: value.HyperConnections, width: int, sizes: Sequence[int]) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.norm = norm(value.norm, value.count * width)
        self.mix = Exact(value.count * width, sum(sizes), bias=True)
        self.scale = nn.Parameter(torch.empty(len(sizes)))

    def numbers(self, x: Float[Tensor, "B T N D"]) -> Sequence[Tensor]:
        assert self.norm is not None
        assert self.mix.bias is not None
        made = F.linear(self.norm(x.float().flatten(-2)), self.mix.weight.float()).split(self.sizes, -1)
        biases = self.mix.bias.float().split(self.sizes)
        return [m * s + b for m, s, b in zip(made, self.scale.float(), biases, strict=True)]


class HyperConnection(Mixing):
    """Hyper-connections around a branch.

    Shapes: x [B T N D] -> what the branch reads, [B T D]; what it gives, [B T D] -> [B T N D]
    Source: arXiv 2512.24880, eq. 3 to 9
    """

    def __init__(self, value: value.HyperConnections, width: int) -> None:
        n = value.count
        super().__init__(value, width, (n, n, n * n) if value.iterations else (n, n))
        self.value = value

    def forward(self, x: Float[Tensor, "B T N D"]) -> Reading:
        value, n = self.value, self.value.count
        reading, writing, *mixing = self.numbers(x)
        writing = value.magnitude * writing.sigmoid() + (0.0 if mixing else value.eps)
        mix = doubly_stochastic(mixing[0].unflatten(-1, (n, n)), value.iterations, value.eps) if mixing else None

        def write(out: Float[Tensor, "B T D"]) -> Float[Tensor, "B T N D"]:
            if mix is None:
                return (writing[..., None] @ out.float()[..., None, :] + x.float()).to(x.dtype)
            return writing.to(x.dtype)[..., None] @ out[..., None, :] + mix.to(x.dtype).mT @ x

        return weighed(x, reading.sigmoid() + value.eps), write


class HyperJoining(Mixing):
    """A mixture of all streams.

    Shapes: x [B T N D] -> [B T D]
    """

    def __init__(self, value: value.HyperConnections, width: int) -> None:
        super().__init__(value, width, (value.count,))
        self.eps = value.eps

    def forward(self, x: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T D"]:
        return weighed(x, self.numbers(x)[0].sigmoid() + self.eps)


def weighed(x: Float[Tensor, "B T N D"], weights: Float[Tensor, "B T N"]) -> Float[Tensor, "B T D"]:
    """The sum of streams times their weights, computed in float32."""
    return (weights[..., None, :] @ x.float()).squeeze(-2).to(x.dtype)


# -- gated streams


class GatedReading(nn.Module):
    """A gated mean of normalised streams.

    Shapes: x [B T N D] -> [B T D]
    """

    def __init__(self, value: value.GatedStreams, width: int) -> None:
        super().__init__()
        self.count, every = value.count, value.count * width
        self.norm = norm(value.norm, every, value.count)
        self.down_proj, self.up_proj = Linear(every, value.rank), Linear(value.rank, every)

    def normalised(self, x: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T N D"]:
        assert self.norm is not None
        return self.norm(x)

    def mean(self, s: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T D"]:
        """Of streams that are normalised."""
        gate = self.up_proj(F.silu(self.down_proj(s.flatten(-2)) / self.count)).sigmoid()
        return (gate.view_as(s) * s).mean(-2)

    def forward(self, x: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T D"]:
        return self.mean(self.normalised(x))


class GatedStream(GatedReading):
    """Gated streams around a branch.

    Shapes: x [B T N D] -> what the branch reads, [B T D]; what it gives, [B T D] -> [B T N D]
    """

    def __init__(self, value: value.GatedStreams, width: int) -> None:
        super().__init__(value, width)
        self.write = Linear(value.count * width, value.count)

    def forward(self, x: Float[Tensor, "B T N D"]) -> Reading:
        s = self.normalised(x)
        taken = 2.0 * (self.write(s.flatten(-2)) / self.count).sigmoid()
        return self.mean(s), lambda out: x + taken[..., None] * out[..., None, :]


# -- means of earlier sums


class Sums(NamedTuple):
    """The embedding with the sums of closed runs, and the sum since; each [B T D]."""

    closed: tuple[Tensor, ...]
    since: Tensor


class Opening(nn.Module):
    """The embedding is the sum since, and nothing is closed.

    Shapes: x [B T D]
    """

    def forward(self, x: Float[Tensor, "B T D"]) -> Sums:
        return Sums((), x)


class EarlierMean(nn.Module):
    """A mean of earlier sums, weighed by a softmax over their scores, computed in float32.

    Shapes: each sum [B T D] -> [B T D]
    Source: arXiv 2607.24653, eq. 8 to 10
    """

    def __init__(self, value: value.AttentionResiduals, width: int) -> None:
        super().__init__()
        self.score, self.norm = Exact(width, 1), norm(value.norm, width)
        self.scale, self.normed = width**-0.5 if value.scaled else 1.0, value.normed

    def mean(self, sums: Sums) -> Float[Tensor, "B T D"]:
        assert self.norm is not None
        every = torch.stack([*sums.closed, sums.since], -2).float()
        normed = self.norm(every)
        weights = (self.score(normed) * self.scale).softmax(-2)
        read = weights.mT @ (normed if self.normed else every)
        return read.squeeze(-2).to(sums.since.dtype)

    def forward(self, sums: Sums) -> Float[Tensor, "B T D"]:
        return self.mean(sums)


class EarlierSums(EarlierMean):
    """Attention residuals around a branch: it adds to the sum since, or begins a new one where it `opens` a run.

    Shapes: sums of [B T D] -> what the branch reads, [B T D]; what it gives, [B T D] -> sums
    """

    def __init__(self, value: value.AttentionResiduals, width: int, opens: bool) -> None:
        super().__init__(value, width)
        self.opens = opens

    def forward(self, sums: Sums) -> Reading:  # type: ignore[override]
        return self.mean(sums), lambda out: added(sums, out, self.opens)


class OwnMean(EarlierMean):
    """A mean of earlier sums for some of what an op reads, and its norm.

    Shapes: each sum [B T D] -> [B T D]
    """

    def __init__(self, value: value.AttentionResiduals, width: int, before: Norm | None) -> None:
        super().__init__(value, width)
        self.before = norm(before, width)

    def forward(self, sums: Sums) -> Float[Tensor, "B T D"]:
        read = self.mean(sums)
        return read if self.before is None else self.before(read)


class SeparateSums(EarlierSums):
    """Attention residuals around attention whose queries, keys and values each read a mean of their own.

    Shapes: sums of [B T D] -> what queries are made of, [B T D], what keys and values are, and the sums after
    """

    def __init__(self, value: value.AttentionResiduals, width: int, opens: bool, before: Norm | None) -> None:
        super().__init__(value, width, opens)
        self.keys, self.values = OwnMean(value, width, before), OwnMean(value, width, before)

    def forward(self, sums: Sums) -> Reading:
        read, write = super().forward(sums)[:2]
        return read, write, self.keys(sums), self.values(sums)


class FirstSum(nn.Module):
    """Around a branch that reads the embedding as it is: the first of all, which opens a run.

    Shapes: sums of [B T D] -> what the branch reads, [B T D]; what it gives, [B T D] -> sums
    """

    def forward(self, sums: Sums) -> Reading:
        return sums.since, lambda out: added(sums, out, opens=True)


def added(sums: Sums, out: Float[Tensor, "B T D"], opens: bool) -> Sums:
    """The sums after what a branch gave."""
    if opens:
        return Sums((*sums.closed, sums.since), out)
    return Sums(sums.closed, sums.since + out)


# -- which part stands where


def entering(chosen: value.Streams | None, width: int) -> nn.Module | None:
    """From an embedding to the streams."""
    match chosen:
        case value.AltUp():
            return Entering(chosen.count, width)
        case value.AttentionResiduals():
            return Opening()
        case value.HyperConnections() | value.GatedStreams():
            return Copies(chosen.count)
    return None


def joining(chosen: value.Streams | None, width: int) -> nn.Module | None:
    """From the streams to what the last norm reads."""
    match chosen:
        case value.AltUp():
            return Joining(chosen.count, width)
        case value.AttentionResiduals():
            return EarlierMean(chosen, width)
        case value.HyperConnections():
            return Mean() if chosen.joining == "mean" else HyperJoining(chosen, width)
        case value.GatedStreams():
            return GatedReading(chosen, width)
    return None


def around_branch(
    chosen: value.Streams | None, width: int, block: int, branch: int, before: Norm | None = None
) -> nn.Module | None:
    """Around the `branch`-th branch of a block, by the numbers of both; `before` is the norm of what it reads."""
    match chosen:
        case value.AttentionResiduals():
            if not chosen.first and (block, branch) == (0, 0):
                return FirstSum()
            opens = branch == 0 and block % chosen.blocks == 0
            if branch == 0 and block in chosen.separate:
                return SeparateSums(chosen, width, opens, before)
            return EarlierSums(chosen, width, opens)
        case value.HyperConnections():
            return HyperConnection(chosen, width)
        case value.GatedStreams():
            return GatedStream(chosen, width)
    return None


def memory(chosen: value.Streams | None, width: int, place: Place) -> NgramMemory | None:
    """What streams are added before the branches of a block."""
    if not isinstance(chosen, value.GatedStreams):
        return None
    return memory_before(chosen.memory, chosen.count, width, place)


def around_block(chosen: value.Streams | None, width: int, block: Block) -> AltUp | None:
    """Around all branches of a block."""
    return AltUp(chosen, width, block) if isinstance(chosen, value.AltUp) else None
