"""The arithmetic of residual streams: matrices made doubly stochastic."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def doubly_stochastic(logits: Float[Tensor, "*B N N"], iterations: int, eps: float) -> Float[Tensor, "*B N N"]:
    """Rows and columns that each sum to one, nearly: a softmax of every row + eps, then divided by sums in turn.

    Units: columns are divided `iterations` times by their sum + eps, rows one time less, columns first and last
    Source: arXiv 2512.24880, eq. 9
    """
    mix = logits.softmax(-1) + eps
    mix = mix / (mix.sum(-2, keepdim=True) + eps)
    for _ in range(iterations - 1):
        mix = mix / (mix.sum(-1, keepdim=True) + eps)
        mix = mix / (mix.sum(-2, keepdim=True) + eps)
    return mix


def doubly_stochastic_reference(logits: Tensor, iterations: int, eps: float) -> Tensor:
    """The obvious twin: one matrix, one row or column at a time."""
    out = torch.full_like(logits, float("nan"))
    for i, matrix in enumerate(logits.flatten(0, -3)):
        n = len(matrix)
        mix = [[float(value) + eps for value in row.softmax(0)] for row in matrix]
        for turn in range(2 * iterations - 1):
            sums = [sum(mix[r][c] for r in range(n)) if turn % 2 == 0 else sum(mix[c]) for c in range(n)]
            mix = [[mix[r][c] / (sums[c if turn % 2 == 0 else r] + eps) for c in range(n)] for r in range(n)]
        out.flatten(0, -3)[i] = torch.tensor(mix, dtype=logits.dtype)
    return out
