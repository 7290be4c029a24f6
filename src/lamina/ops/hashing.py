"""Hashes of the last few tokens: which row of a table stands for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor


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
