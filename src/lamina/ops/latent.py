"""Attention of many heads to one set of rows, whose first numbers are the values too: latent attention, absorbed."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lamina.ops.attention import Reach, scored
from lamina.ops.native import usable

SCORES = 1 << 24
"""How many scores are held in memory at once."""


def attend_latent(
    q: Float[Tensor, "B H T K"],
    rows: Float[Tensor, "B S K"],
    rank: int,
    reach: Reach,
    scale: float,
    sinks: Float[Tensor, " H"] | None = None,
    factor: Float[Tensor, "B 1 T 1"] | None = None,
) -> Float[Tensor, "B H T R"]:
    """softmax(factor * scale * q rows^T) rows[:rank], over the rows that each query reaches.

    All heads read the same rows, so the heads of a query are as further queries of one product. The twin is
    `attend_reference` with rows as keys, and their first `rank` numbers as values.
    Source: arXiv 2405.04434, section 2.1.2; 1911.02150 (one set of keys for all heads).
    """
    batch, heads, tokens, _ = q.shape
    alone = tokens == 1 and reach.everything and sinks is None and factor is None
    if alone and (out := _one_query(q, rows, rank, scale)) is not None:
        return out
    keys, values = rows[:, None], rows[:, None, :, :rank]
    pieces, most = [], max(1, SCORES // (batch * heads * rows.shape[1]))
    for start in range(0, tokens, most):
        part = slice(start, min(start + most, tokens))
        seen = None if reach.everything or reach.queries is None else reach.mask(part, slice(None))
        weigh = None if factor is None else factor[:, :, part]
        pieces.append(scored(q[:, :, part], keys, values, seen, scale, None, sinks, weigh))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)


def _one_query(q: Tensor, rows: Tensor, rank: int, scale: float) -> Tensor | None:
    """A single query that sees every row, where the compiled function can: it reads each row once for all heads."""
    batch, heads, _, dim = q.shape
    dense = rows.stride(2) == 1 and rows.stride(1) == dim and rows.is_cpu and rows.dtype == torch.float32
    q = q.contiguous()
    if not dense or len(rows) != batch or not rows.shape[1] or (native := usable(q)) is None:
        return None
    threads = torch.get_num_threads()
    out, found = q.new_empty(batch, heads, 1, rank), q.new_empty(threads * heads * (2 + rank))
    places = q.data_ptr(), rows.data_ptr(), out.data_ptr(), found.data_ptr()
    native.attend_latent(*places, batch, heads, rows.shape[1], dim, rank, rows.stride(0), scale, threads)
    return out
