"""A memory of the last few tokens together that residual streams read, found by a hash."""

from __future__ import annotations

import functools
import math
from itertools import count, islice

from pydantic import NonNegativeInt, PositiveInt, model_validator

from lamina.arch.base import Node
from lamina.arch.measure import Kept, Shape, linear, matrices, numbers, within
from lamina.arch.norm import Norm, RMSNorm

BITS = (1 << 64) - 1


class NgramMemory(Node):
    """What N residual streams are added before the branches of `blocks`, from hashes of a token and those before it.

    For every length from 2 to `longest`, `tables` tables hold vectors of `width` (E) / (tables (longest - 1))
    numbers; side by side they make e. Stream i is added v_i + SiLU(convolution(norm(v_i))), where v_i = sigmoid(
    sign(g_i) sqrt(|g_i|)) value(e) and g_i = norm(key_i(e)) . norm(stream_i) / sqrt(D). The convolution of each
    channel has `kernel` taps, `longest` tokens apart.

    Table j, counted over all blocks, has as many rows as the j-th prime from `rows` on; a block's rows together are
    made a multiple of `multiple`. The row is, modulo that prime, the exclusive or of each token times a number drawn
    from `seed` for its place. `end` ends a text, and stands for what is before one.
    Source: the reference of Qwen4-Exp (Qwen3.8-Flash-Next).
    """

    blocks: tuple[NonNegativeInt, ...]
    width: PositiveInt
    longest: PositiveInt
    tables: PositiveInt
    rows: PositiveInt
    multiple: PositiveInt = 1
    kernel: PositiveInt = 4
    seed: int
    end: NonNegativeInt
    norm: Norm = RMSNorm()

    @model_validator(mode="after")
    def _consistent(self) -> NgramMemory:
        if self.longest < 2 or self.width % self.count:
            raise ValueError(f"width ({self.width}) must be a multiple of tables * (longest - 1) ({self.count})")
        return self

    @property
    def count(self) -> int:
        """How many tables each block has."""
        return self.tables * (self.longest - 1)

    def sizes(self, place: int) -> tuple[int, ...]:
        """The rows of the tables of the `place`-th of `blocks`."""
        return primes(self.rows, (place + 1) * self.count)[place * self.count :]

    def weights(self, width: int, streams: int, place: int) -> dict[str, Shape]:
        """Of the `place`-th of `blocks`, beside so many streams."""
        every = streams * width
        rows = -(-sum(self.sizes(place)) // self.multiple) * self.multiple
        named: dict[str, Shape] = {"table": (rows, self.width // self.count)}
        named |= {"convolution.weight": (every, 1, self.kernel)}
        named |= linear("key_proj", every, self.width) | linear("value_proj", width, self.width)
        for name in ("key_norm", "stream_norm", "convolution_norm"):
            named |= within(name, self.norm.weights(every))
        return named

    def flops(self, width: int, streams: int) -> int:
        """Of one token: its projections and the convolution."""
        named = self.weights(width, streams, 0)
        del named["table"]
        return 2 * matrices(named) + 2 * streams * width * self.kernel

    def unused(self, weights: dict[str, Shape]) -> int:
        """A token reads one row of each table."""
        return numbers([weights["table"]]) - self.width

    def keeps(self, width: int, streams: int) -> tuple[Kept, ...]:
        """The convolution's last inputs, and the last tokens."""
        tail = streams * width * (self.kernel - 1) * self.longest
        tokens = Kept("tokens", self.longest - 1, each="sequence", dtype="int64")
        return (Kept("convolution", tail, each="sequence"), tokens)


@functools.cache
def primes(start: int, number: int) -> tuple[int, ...]:
    """So many primes, from `start` on."""
    found = (n for n in count(max(start, 2)) if all(n % d for d in (2, *range(3, math.isqrt(n) + 1, 2)) if d < n))
    return tuple(islice(found, number))


def drawn(seed: int) -> int:
    """64 bits that look random. Source: doi 10.1145/2660193.2660195, figure 16 (SplitMix64)."""
    z = (seed + 0x9E3779B97F4A7C15) & BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & BITS
    return z ^ (z >> 31)


@functools.cache
def factors(vocab: int, longest: int, place: int, seed: int) -> tuple[int, ...]:
    """What a token is multiplied by at each of the last `longest` places: odd, and no product takes 64 bits.

    Source: the reference of Qwen4-Exp
    """
    half = max(1, ((1 << 63) - 1) // max(vocab, 1) // 2)
    seeds = ((seed + 10007 * place + 0x9E3779B97F4A7C15 * (i + 1)) & BITS for i in range(longest))
    return tuple(2 * (drawn(one) % half) + 1 for one in seeds)
