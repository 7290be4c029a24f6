"""The residual stream where it is more than one sum: how branches read it and write to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from lamina.arch.base import Node, one_of
from lamina.arch.measure import Kept, Shape, linear, matrices, within
from lamina.arch.ngram_memory import NgramMemory
from lamina.arch.norm import Norm, RMSNorm


class StreamPart(NamedTuple):
    """What stands around branches, blocks or all of them, and how often.

    Fields: of one, the `weights`, the forward `flops` of a token, and the numbers of it `saved` for the backward pass;
    what it `keeps` of a sequence, and how many of its parameters are `unused` by a token.
    """

    name: str
    times: int
    weights: dict[str, Shape]
    flops: int
    saved: int
    keeps: tuple[Kept, ...] = ()
    unused: int = 0


class Streams(Node):
    """How branches meet the residual stream. `branches` is how many branches each block has."""

    def parts(self, width: int, branches: Sequence[int]) -> Iterator[StreamPart]:
        raise TypeError(f"{type(self).__name__} does not say what it costs")


class HyperConnections(Streams):
    """N streams, all of them the embedding at first. A branch reads one mixture of them and writes to every one.

    From all streams of a token, normalised together, a projection makes N weights to read with, sigmoid(s_1 a + b)
    + eps, N to write with, `magnitude` sigmoid(s_2 a + b), and N x N to mix them with, a softmax of each row + eps,
    made doubly stochastic by `iterations` of dividing columns and rows by their sums + eps: stream_j = write_j out +
    sum_i mix_ij stream_i. Before the last norm a mixture, with weights as for reading, joins the streams, or their
    mean where `joining` says so (GLM-5.3-Flash). Without `iterations` the streams are not mixed, stream_j = write_j
    out + stream_j, and eps is added to the N to write with too (Hunyuan 4).
    Source: arXiv 2409.19606 (the idea), 2512.24880 (doubly stochastic); as in DeepSeek-V4.
    """

    kind: Literal["hyper_connections"] = "hyper_connections"
    count: PositiveInt
    iterations: NonNegativeInt
    magnitude: PositiveFloat = 2.0
    eps: NonNegativeFloat = 1e-6
    norm: Norm = RMSNorm(weight=False)
    joining: Literal["learned", "mean"] = "learned"

    def parts(self, width: int, branches: Sequence[int]) -> Iterator[StreamPart]:
        n, streams = self.count, self.count * width
        each = 2 * n + (n * n if self.iterations else 0)
        weights = self._weights(each, 3 if self.iterations else 2, streams)
        flops = 2 * matrices(weights) + 2 * each * width  # read, write and mix
        yield StreamPart("connections", sum(branches), weights, flops, saved=streams + width + each)
        if self.joining == "mean":
            return
        joining = self._weights(n, 1, streams)
        yield StreamPart("joining", 1, joining, 2 * matrices(joining) + 2 * n * width, saved=streams + n)

    def _weights(self, made: int, scales: int, streams: int) -> dict[str, Shape]:
        """A projection of all streams to `made` numbers, of `scales` kinds that each have a factor."""
        norm = within("norm", self.norm.weights(streams))
        return norm | linear("mix", made, streams, bias=True) | {"scale": (scales,)}


class AttentionResiduals(Streams):
    """A branch reads a mean of earlier sums instead of their total, weighed by a softmax over learned scores.

    The sums are the embedding, what the branches of each closed run of `blocks` blocks gave, and what those since
    gave; a sum's score is w . norm(sum), with w and norm the branch's own. The last norm reads such a mean too. The
    first branch of a run still reads the run before as the sum since.
    Fields: with `scaled`, scores are divided by sqrt(D); with `normed`, the mean is of the normalised sums; without
    `first`, the first branch of all reads the embedding as it is. The first branch of a block in `separate` reads
    three means, for queries, keys and values, each with w and a norm `before` of its own (Inkling 2).
    Source: arXiv 2607.24653 (Kimi K3), eq. 8 to 10.
    """

    kind: Literal["attention_residuals"] = "attention_residuals"
    blocks: PositiveInt
    norm: Norm = RMSNorm()
    scaled: bool = False
    normed: bool = False
    first: bool = True
    separate: tuple[PositiveInt, ...] = ()

    def parts(self, width: int, branches: Sequence[int]) -> Iterator[StreamPart]:
        weights = linear("score", 1, width) | within("norm", self.norm.weights(width))
        read = Counter(self.sums(i, b) for i, count in enumerate(branches) for b in range(count))
        read.update(self.sums(i, 0) for i in self.separate for _ in ("keys", "values"))
        if not self.first:
            read[1] -= 1
        if self.separate:
            more = {"keys.before.weight": (width,), "values.before.weight": (width,)}
            yield StreamPart("norms of keys and values", len(self.separate), more, 0, saved=2 * width)
        for sums, times in sorted((+read).items()):
            flops = 4 * sums * width if sums > 1 else 0  # scores, and the mean
            yield StreamPart(f"reading {sums} sums", times, weights, flops, saved=width + sums)
        last = self.sums(len(branches), 0)
        yield StreamPart("joining", 1, weights, 4 * last * width, saved=width + last)

    def sums(self, block: int, branch: int) -> int:
        """How many sums a branch of a block reads: closed ones with the embedding, and that of what came since."""
        closed = -(-block // self.blocks) if branch == 0 else block // self.blocks + 1
        return closed + 1


class AltUp(Streams):
    """N streams of which a block computes one, the active; the others follow it by learned rules.

    Before a block each stream j becomes stream_j + sum_i c_ji stream_i, and after it every one is added
    (1 + d_j) (what the block made of the active one - what it was predicted to be). The N x N numbers c and the N
    numbers d are linear in tanh(W norm(the active one) / D), before and after. The first begins as the embedding, the
    others as maps of it, made as long as it; at the end, maps of them as long as the first, and it, are averaged.
    Fields: `output_scale`: a learned vector multiplies what a block's per-layer input reads; `clip` bounds the
    weights that make c and d in training.
    Source: arXiv 2301.13310 (AltUp); as in Gemma 3n.
    """

    kind: Literal["altup"] = "altup"
    count: Annotated[int, Field(ge=2)]
    active: NonNegativeInt = 0
    norm: Norm = RMSNorm()
    output_scale: bool = True
    clip: PositiveFloat | None = None

    @model_validator(mode="after")
    def _consistent(self) -> AltUp:
        if self.active >= self.count:
            raise ValueError(f"active ({self.active}) must be one of the {self.count} streams")
        return self

    def parts(self, width: int, branches: Sequence[int]) -> Iterator[StreamPart]:
        n = self.count
        router = linear("router", n, width) | within("norm", self.norm.weights(width))
        rules = linear("predict", n * n, n) | linear("correct", n, n)
        scale: dict[str, Shape] = {"output_scale": (width,)} if self.output_scale else {}
        flops = 2 * (2 * matrices(router) + matrices(rules) + (n * n + n) * width)  # the router is asked twice
        yield StreamPart("altup", len(branches), router | rules | scale, flops, saved=2 * n * width + 2 * width)
        for name in ("entering", "joining"):
            maps = {key: shape for i in range(1, n) for key, shape in linear(f"maps.{i}", width, width).items()}
            yield StreamPart(name, 1, maps, 2 * matrices(maps), saved=n * width)


class GatedStreams(Streams):
    """N streams, all of them the embedding at first. A branch reads a gated mean of them and writes to every one.

    Each stream is normalised; from all of them a bottleneck of `rank` numbers makes a gate for every number,
    sigmoid(up(SiLU(down(s) / N))), and the mean of gated streams is read. What a branch gives is added to stream i
    times 2 sigmoid(w_i . s / N). After the last block such a mean, with weights of its own, joins the streams.
    `memory` adds vectors of the last few tokens to the streams before some blocks.
    Source: the reference of Qwen4-Exp (Qwen3.8-Flash-Next); arXiv 2409.19606 (the idea).
    """

    kind: Literal["gated_streams"] = "gated_streams"
    count: PositiveInt
    rank: PositiveInt
    norm: Norm = RMSNorm()
    memory: NgramMemory | None = None

    def parts(self, width: int, branches: Sequence[int]) -> Iterator[StreamPart]:
        n, streams = self.count, self.count * width
        reading = within("norm", self.norm.weights(streams))
        reading |= linear("down_proj", self.rank, streams) | linear("up_proj", streams, self.rank)
        weights, saved = reading | linear("write", n, streams), 3 * streams + 2 * self.rank
        flops = 2 * matrices(weights)
        yield StreamPart("connections", sum(branches), weights, flops, saved=saved + width + n)
        yield StreamPart("joining", 1, reading, 2 * matrices(reading), saved=saved)
        if (memory := self.memory) is None:
            return
        for place, block in enumerate(memory.blocks):
            weights = memory.weights(width, n, place)
            yield StreamPart(
                f"memory before blocks[{block}]",
                *(1, weights, memory.flops(width, n), 4 * streams + width + memory.width),
                keeps=memory.keeps(width, n),
                unused=memory.unused(weights),
            )


if TYPE_CHECKING:
    AnyStreams = HyperConnections | AttentionResiduals | AltUp | GatedStreams
else:
    AnyStreams = one_of(HyperConnections, AttentionResiduals, AltUp, GatedStreams)
