"""Means of runs of tokens, weighed by a softmax, that can be gone on with as tokens come."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

NONE = -1e30
"""The largest logit of a mean over nothing: finite, so that two of them can be compared."""

Pooled = Float[Tensor, "3 *B"]
"""A mean that can go on: the largest logit, the sum of weights relative to it, and the weighted sum."""


def empty(*shape: int, device: torch.device | None = None) -> Pooled:
    """Means over nothing, float32."""
    made = torch.zeros(3, *shape, dtype=torch.float32, device=device)
    made[0] = NONE
    return made


def pooled(values: Float[Tensor, "*B S K"], logits: Float[Tensor, "*B S K"]) -> Pooled:
    """For each number a mean over S, weighed by a softmax; a logit of minus infinity leaves a token out."""
    values, logits = values.float(), logits.float()
    peak = logits.detach().amax(-2).clamp(min=NONE)
    weights = (logits - peak[..., None, :]).exp()
    return torch.stack([peak, weights.sum(-2), (weights * values).sum(-2)])


def merged(a: Pooled, b: Pooled) -> Pooled:
    """The mean over what two means are over."""
    peak = torch.maximum(a[0], b[0])
    left, right = (a[0] - peak).exp(), (b[0] - peak).exp()
    return torch.stack([peak, a[1] * left + b[1] * right, a[2] * left + b[2] * right])


def runs_pooled(
    values: Float[Tensor, "B R S sK"], logits: Float[Tensor, "B R S sK"], before: Float[Tensor, "3 B s K"]
) -> Float[Tensor, "3 B E K"]:
    """The entries of R runs of S tokens and those that the runs leave open, E = R + s.

    A token goes into the entries of s runs: for s = 2, its first K numbers into the entry of the next run, the others
    into that of its own. `before` are the first s entries, as far as earlier tokens made them.
    Source: DeepSeek-V4 report, section 2.3.1 and 2.3.2, eq. 20 to 23
    """
    series = before.shape[2]
    each = pooled(values, logits).unflatten(-1, (series, -1))  # [3 B R s K]
    batch, dim = before.shape[1], before.shape[3]
    rest = empty(batch, each.shape[2], dim, device=values.device)
    entries = torch.cat([before, rest], 2)
    for later in range(series):
        own = each[:, :, :, series - 1 - later]
        gap = empty(batch, later, dim, device=values.device), empty(batch, series - later, dim, device=values.device)
        entries = merged(entries, torch.cat([gap[0], own, gap[1]], 2))
    return entries


def runs_pooled_reference(values: Tensor, logits: Tensor, stride: int, series: int) -> Tensor:
    """The obvious twin: the entries of all whole runs of a sequence, one entry and number at a time.

    Shapes: values, logits [B T sK] -> [B T/stride K]
    """
    batch, tokens, rows = values.shape
    dim, runs = rows // series, tokens // stride
    out = torch.full((batch, runs, dim), float("nan"), dtype=values.dtype)
    for b, r, k in ((b, r, k) for b in range(batch) for r in range(runs) for k in range(dim)):
        own = [(t, (series - 1) * dim + k) for t in range(r * stride, (r + 1) * stride)]
        earlier = [(t - stride, k) for t, _ in own if series == 2 and t >= stride]
        places = [*earlier, *own]
        weights = torch.softmax(torch.stack([logits[b, t, c] for t, c in places]), 0)
        out[b, r, k] = sum(w * values[b, t, c] for w, (t, c) in zip(weights, places, strict=True))
    return out
