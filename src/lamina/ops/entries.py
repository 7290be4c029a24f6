"""Attention to a window of tokens and to entries that each stand for a run of tokens."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lamina.ops.attention import Reach

SCORES = 1 << 26
"""How many scores are held in memory at once."""


def attend_entries(
    q: Float[Tensor, "B H T K"],
    keys: Float[Tensor, "B S K"],
    reach: Reach,
    entries: Float[Tensor, "B E K"],
    seen: Int[Tensor, "R T"],
    chosen: Int[Tensor, "B T k"] | None,
    sinks: Float[Tensor, " H"],
    scale: float,
) -> Float[Tensor, "B H T K"]:
    """Softmax attention to keys, which are the values too, as far as `reach` goes, and to entries.

    A query sees the first `seen` entries, or the `chosen` ones where there are such, -1 standing for none. `sinks` are
    scores of no key.
    Where a few queries read a few entries each, only those are read.
    Source: DeepSeek-V4 report, section 2.3
    """
    batch, heads, tokens, _ = q.shape
    few = chosen is not None and tokens * chosen.shape[2] <= entries.shape[1]
    width = keys.shape[1] + entries.shape[1]
    step, pieces = tokens if few else max(1, SCORES // (batch * heads * width)), []
    for start in range(0, tokens, step):
        rows = slice(start, min(start + step, tokens))
        columns = _columns(reach, rows, tokens, keys.shape[1])
        part, near = q[:, :, rows], keys[:, None, columns]
        mask = reach.mask(rows, columns) if reach.queries is not None else None
        choice, visible = None if chosen is None else chosen[:, rows], seen[:, rows]
        far = _gathered(entries, choice) if few and choice is not None else entries[:, None]
        outside = _outside(choice, visible, entries.shape[1], few)
        pieces.append(_part(part * scale, near, mask, far, outside, sinks))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)


def _columns(reach: Reach, rows: slice, tokens: int, keys: int) -> slice:
    """The keys that any of these queries can see; the last `tokens` keys are the queries' own."""
    if reach.window is None:
        return slice(0, keys)
    earlier = keys - tokens
    return slice(max(0, earlier + rows.start - reach.window + 1), earlier + rows.stop)


def _gathered(entries: Tensor, chosen: Tensor) -> Float[Tensor, "B T k K"]:
    rows = torch.arange(len(entries), device=entries.device)[:, None, None]
    return entries[rows, chosen]


def _outside(chosen: Tensor | None, seen: Tensor, entries: int, gathered: bool) -> Tensor:
    """Which entries are not to be seen, [B|R 1 T E], or of those gathered."""
    if chosen is None:
        return (torch.arange(entries, device=seen.device) >= seen[..., None])[:, None]
    if gathered:
        return (chosen < 0)[:, None]
    left = torch.ones(*chosen.shape[:2], entries + 1, dtype=torch.bool, device=seen.device)
    return left.scatter(-1, chosen.where(chosen >= 0, entries).long(), False)[:, None, :, :-1]


def _part(q: Tensor, near: Tensor, mask: Tensor | None, far: Tensor, outside: Tensor, sinks: Tensor) -> Tensor:
    """One softmax over keys [B 1 S K], entries ([B 1 E K], or [B T k K] for each query) and sinks."""
    own = far.shape[1] == q.shape[2]
    close = (q @ near.mT).float()
    distant = ((q.transpose(1, 2) @ far.mT).transpose(1, 2) if own else q @ far.mT).float()
    close = close if mask is None else close.masked_fill(~mask, float("-inf"))
    distant = distant.masked_fill(outside, float("-inf"))
    extra = sinks.float()[:, None, None].expand(*close.shape[:3], 1)
    weights = torch.softmax(torch.cat([close, distant, extra], -1), -1).to(near.dtype)
    left, right, _ = weights.split([near.shape[2], distant.shape[3], 1], -1)
    read = (right.transpose(1, 2) @ far).transpose(1, 2) if own else right @ far
    return left @ near + read


def attend_entries_reference(
    q: Tensor,
    keys: Tensor,
    reach: Reach,
    entries: Tensor,
    seen: Tensor,
    chosen: Tensor | None,
    sinks: Tensor,
    scale: float,
) -> Tensor:
    """The obvious twin of `attend_entries`: one row, head and query at a time. `reach` must hold positions."""
    out, visible = torch.full_like(q, float("nan")), reach.mask(slice(None), slice(None))
    for b, t in ((b, t) for b in range(len(q)) for t in range(q.shape[2])):
        near = keys[b, visible[b if len(visible) > 1 else 0, 0, t]]
        every = range(int(seen[b if len(seen) > 1 else 0, t]))
        far = entries[b, [e for e in every if chosen is None or e in chosen[b, t].tolist()]]
        read = torch.cat([near, far])
        for h in range(q.shape[1]):
            scores = torch.cat([read @ q[b, h, t] * scale, sinks[h : h + 1].to(q)])
            out[b, h, t] = torch.softmax(scores, 0)[:-1] @ read
    return out
