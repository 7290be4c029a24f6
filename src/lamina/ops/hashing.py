"""Hashes of the last few tokens: which row of a table stands for them."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

BITS = (1 << 64) - 1


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


def earlier(tokens: Int[Tensor, "B S"], count: int, end: int) -> Int[Tensor, "B count n"]:
    """The last `count` tokens, each with the n - 1 before it, last first; nothing of before an `end` is seen.

    Shapes: S is count + n - 1
    """
    windows = tokens.unfold(1, tokens.shape[1] - count + 1, 1).flip(-1)
    ended = (windows[..., 1:] == end).cumsum(-1) > 0
    return torch.cat([windows[..., :1], windows[..., 1:].masked_fill(ended, end)], -1)


def hashed(tokens: Int[Tensor, "B T n"], factors: Sequence[int], sizes: Sequence[int]) -> Int[Tensor, "B T tables"]:
    """The row of each table; `sizes` are those of the tables, as many for each length from 2 to n.

    Of a length, it is the exclusive or of tokens times their factors, modulo the size.
    """
    each = len(sizes) // (len(factors) - 1)
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    mixed, rows = tokens[..., 0] * factors[0], []
    for length in range(2, len(factors) + 1):
        mixed = mixed ^ (tokens[..., length - 1] * factors[length - 1])
        some = range((length - 2) * each, (length - 1) * each)
        rows += [mixed % sizes[i] + starts[i] for i in some]
    return torch.stack(rows, -1)
