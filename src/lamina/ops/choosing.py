"""Which keys a query reads in sparse attention: cheap scores of all that it sees, and the best of them.

Scores are made a few queries at a time, so that those of a long prompt are never held together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

BUDGET = 1 << 25
"""Bytes of scores, or of keys and values fetched for sparse attention, that are held at a time."""


def best(scores: Float[Tensor, "*B S"], count: int) -> Int[Tensor, "*B {count}"]:
    """The places of the `count` largest of each row, in order of place; of equal ones the first; -1 for -inf.

    Where a row has fewer, the last ones are -1 too.
    """
    held = min(count, scores.shape[-1])
    scores = scores.nan_to_num(-math.inf, math.inf, -math.inf)
    least = scores.topk(held).values[..., -1:]
    above, level = scores > least, scores == least
    taken = above | (level & (level.cumsum(-1) <= held - above.sum(-1, keepdim=True)))
    places = taken.nonzero()[:, -1].view(*scores.shape[:-1], held)
    places = places.where(scores.gather(-1, places) > -math.inf, -1)
    return F.pad(places, (0, count - held), value=-1).int()


def key_scores(
    q: Float[Tensor, "B t I J"], k: Float[Tensor, "B S J"], seen: Bool[Tensor, "R t S"]
) -> Float[Tensor, "B t I S"]:
    """q . k of each head, in float32; -inf where a key is not seen."""
    scores = (q.flatten(1, 2).float() @ k.float().mT).unflatten(1, q.shape[1:3])
    return scores.masked_fill_(~seen[:, :, None], -math.inf)


def sum_scores(
    q: Float[Tensor, "B t I J"],
    k: Float[Tensor, "B S J"],
    weights: Float[Tensor, "B t I"] | None,
    seen: Bool[Tensor, "R t S"],
) -> Float[Tensor, "B t S"]:
    """The sum over heads of w relu(q . k), or of relu(q . k) where there are no weights; -inf where not seen."""
    scores = (q.flatten(1, 2).float() @ k.float().mT).relu_().unflatten(1, q.shape[1:3])
    total = scores.sum(2) if weights is None else (weights.float()[:, :, None] @ scores)[:, :, 0]
    return total.masked_fill_(~seen, -math.inf)


def choose_runs(
    q: Float[Tensor, "B t I J"],
    k: Float[Tensor, "B S J"],
    weights: Float[Tensor, "B t I"] | None,
    positions: Int[Tensor, "R t"],
    top_k: int,
    size: int = 1,
) -> Int[Tensor, "B 1 t {top_k}"]:
    """For each query the `top_k` best runs of `size` tokens, by one key a run; of whole runs that it sees.

    Source: arXiv 2512.02556, eq. 1 and 2.
    """
    found = []
    for piece, last in _pieces(q, k, positions):
        keys = min(k.shape[1], (int(last.max()) + 1) // size)
        seen = (torch.arange(keys, device=q.device) + 1) * size <= last + 1
        given = None if weights is None else weights[:, piece]
        found.append(best(sum_scores(q[:, piece], k[:, :keys], given, seen), top_k))
    return torch.cat(found, 1)[:, None]


def choose_blocks(
    q: Float[Tensor, "B t I J"],
    k: Float[Tensor, "B S J"],
    positions: Int[Tensor, "R t"],
    top_k: int,
    size: int,
    local: int,
) -> Int[Tensor, "B I t {top_k}"]:
    """For each query and head the `top_k` blocks of `size` tokens that are best by their best key that it sees.

    Its `local` last blocks are among them whatever they score.
    Source: arXiv 2502.11089, section 3.3; the maximum: MiniMax-M3's published reference.
    """
    found = []
    for piece, last in _pieces(q, k, positions):
        keys = min(k.shape[1], int(last.max()) + 1)
        seen = torch.arange(keys, device=q.device) <= last
        scores = F.pad(key_scores(q[:, piece], k[:, :keys], seen), (0, -keys % size), value=-math.inf)
        largest = scores.unflatten(-1, (-1, size)).amax(-1)  # [B t I blocks]
        blocks = torch.arange(largest.shape[-1], device=q.device)
        near = (blocks <= last // size) & (blocks > last // size - local)
        found.append(best(largest.masked_fill_(near[:, :, None], math.inf), top_k))
    return torch.cat(found, 1).transpose(1, 2)


def _pieces(q: Tensor, k: Tensor, positions: Tensor) -> Iterator[tuple[slice, Int[Tensor, "R t 1"]]]:
    """Queries a few at a time, so that their scores fit, and their positions."""
    batch, tokens, heads = q.shape[:3]
    step = max(1, BUDGET // (4 * batch * heads * max(1, k.shape[1])))
    for start in range(0, tokens, step):
        piece = slice(start, min(start + step, tokens))
        yield piece, positions[:, piece, None]


def choose_runs_reference(
    q: Tensor, k: Tensor, weights: Tensor | None, positions: Tensor, top_k: int, size: int = 1
) -> Tensor:
    """The obvious twin of `choose_runs`: one query at a time, and a plain sort."""
    out = torch.full((len(q), 1, q.shape[1], top_k), -1, dtype=torch.int32)
    for b in range(len(q)):
        for t in range(q.shape[1]):
            seen = min(k.shape[1], (int(positions[b % len(positions), t]) + 1) // size)
            scores = [torch.relu(q[b, t] @ k[b, s]) for s in range(seen)]  # of each head
            given = torch.ones_like(q[b, t, :, 0]) if weights is None else weights[b, t]
            ranked = sorted(range(seen), key=lambda s: (-float(given @ scores[s]), s))[:top_k]
            out[b, 0, t, : len(ranked)] = torch.tensor(sorted(ranked))
    return out


def choose_blocks_reference(q: Tensor, k: Tensor, positions: Tensor, top_k: int, size: int, local: int) -> Tensor:
    """The obvious twin of `choose_blocks`."""
    out = torch.full((len(q), q.shape[2], q.shape[1], top_k), -1, dtype=torch.int32)
    for b in range(len(q)):
        for t in range(q.shape[1]):
            last = int(positions[b % len(positions), t])
            for h in range(q.shape[2]):
                scores = (k[b, : last + 1] @ q[b, t, h]).split(size)
                rank = {i: float(part.max()) for i, part in enumerate(scores)}
                rank |= {i: math.inf for i in rank if i > last // size - local}
                ranked = sorted(rank, key=lambda i: (-rank[i], i))[:top_k]
                out[b, h, t, : len(ranked)] = torch.tensor(sorted(ranked))
    return out
