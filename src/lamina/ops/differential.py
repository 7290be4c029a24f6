"""Differential attention: what one softmax map gives, less a share of what another gives of the same values."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from lamina.ops.attention import Reach, attend


def attend_differential(
    q: Float[Tensor, "B 2H T K"],
    k: Float[Tensor, "B 2G S K"],
    v: Float[Tensor, "B G S V"],
    reach: Reach,
    scale: float,
    share: Float[Tensor, ""],
) -> Float[Tensor, "B H T V"]:
    """softmax(q1 k1) v - share softmax(q2 k2) v, over the keys that each query reaches.

    Queries and keys of the first maps come before those of the second; head h reads keys and values h * G // H.
    Source: arXiv 2410.05258, eq. 1.
    """
    (q1, q2), (k1, k2) = q.chunk(2, 1), k.chunk(2, 1)
    return attend(q1, k1, v, reach, scale) - share * attend(q2, k2, v, reach, scale)


def attend_differential_reference(
    q: Float[Tensor, "B 2H T K"],
    k: Float[Tensor, "B 2G S K"],
    v: Float[Tensor, "B G S V"],
    reach: Reach,
    scale: float,
    share: Float[Tensor, ""],
) -> Float[Tensor, "B H T V"]:
    """The same, a head and a query at a time, over the difference of its two maps."""
    assert reach.queries is not None
    assert reach.keys is not None
    (batch, both, tokens, _), groups = q.shape, v.shape[1]
    heads, rows = both // 2, []
    for b in range(batch):
        for h in range(heads):
            g = h * groups // heads
            for t in range(tokens):
                seen = reach.mask(slice(t, t + 1), slice(None)).expand(batch, -1, -1, -1)[b, 0, 0]
                first = torch.softmax(scale * k[b, g, seen] @ q[b, h, t], 0)
                second = torch.softmax(scale * k[b, groups + g, seen] @ q[b, heads + h, t], 0)
                rows.append((first - share * second) @ v[b, g, seen])
    return torch.stack(rows).view(batch, heads, tokens, -1)
