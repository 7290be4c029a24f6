"""Softmax attention over keys at known positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from lamina.ops.native import usable
from lamina.ops.relative import Distances

QUERIES = 512
"""How many queries are scored at once where scores or a mask are held in memory: bounds them at long prompts."""


@dataclass(frozen=True)
class Reach:
    """Which keys each query sees, by position.

    Shapes: queries [R T], keys [R S] hold positions, R being 1 (all rows alike) or B; a negative key position
    is an empty slot. `ends` [B 1], where given, bounds the keys of each row. A query sees keys at or before
    itself when `causal`, and only the last `window` of those when there is one, or those of its own `chunk` of so
    many tokens (where `window` is as much). Keys stand in order of position. `everything` says that no mask is
    needed; `square` that query i is key i and order is all.
    """

    queries: Int[Tensor, "R T"] | None = None
    keys: Int[Tensor, "R S"] | None = None
    causal: bool = True
    window: int | None = None
    chunk: int | None = None
    ends: Int[Tensor, "B 1"] | None = None
    everything: bool = False
    square: bool = False

    def mask(self, queries: slice, keys: slice) -> Bool[Tensor, "R 1 t s"]:
        assert self.queries is not None
        assert self.keys is not None
        q, k = self.queries[:, queries, None], self.keys[:, None, keys]
        seen = (k >= 0).expand(-1, q.shape[1], -1)
        if self.causal:
            seen = seen & (k <= q)
        if self.window is not None:
            seen = seen & (k > q - self.window)
        if self.chunk is not None:
            seen = seen & (k // self.chunk == q // self.chunk)
        if self.ends is not None:
            seen = seen & (k < self.ends[:, None])
        return seen[:, None]


def attend(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S V"],
    reach: Reach,
    scale: float,
    softcap: float | None = None,
    sinks: Float[Tensor, " H"] | Float[Tensor, "B H T"] | None = None,
    factor: Float[Tensor, "B 1 T 1"] | None = None,
    distances: Distances | None = None,
) -> Float[Tensor, "B H T V"]:
    """softmax(factor * (softcap(scale * q k^T) + scores of distances)) v, over the keys that each query reaches.

    `sinks` are scores of no key at all, one a head or one a head and query, that take part in the softmax. `factor` is
    of each query.
    Heads: query head h uses key head h * G // H. Work with a window grows with T * window, not T * S.
    Source: arXiv 1706.03762, eq. 1; soft-caps: 2408.00118, section 2; sinks: 2309.17453, eq. 2 (learned: gpt-oss).
    """
    tokens, groups = q.shape[2], q.shape[1] // k.shape[1]
    plain = softcap is None and sinks is None and factor is None and distances is None
    if plain and reach.everything and tokens == 1:
        return _one_query(q, k, v, scale, groups)
    if plain and (reach.everything or reach.square):
        return dense(q, k, v, None, reach.square, scale)
    pieces = []
    for start in range(0, tokens, QUERIES):
        rows = slice(start, min(start + QUERIES, tokens))
        columns = _columns(reach, rows, tokens, k.shape[2])
        mask = reach.mask(rows, columns) if reach.queries is not None else None
        part = q[:, :, rows], k[:, :, columns], v[:, :, columns], mask
        if plain:
            pieces.append(dense(*part, False, scale))
        else:
            some = sinks if sinks is None or sinks.ndim == 1 else sinks[:, :, rows]
            far = None if distances is None else distances.scores(rows, columns)
            pieces.append(scored(*part, scale, softcap, some, None if factor is None else factor[:, :, rows], far))
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, 2)


def _one_query(q: Tensor, k: Tensor, v: Tensor, scale: float, groups: int) -> Tensor:
    """A single query that sees every key: keys are read once for each group, not once for each head."""
    batch, heads, _, dim = q.shape
    rows = k.stride(2) == v.stride(2) == dim and k.stride() == v.stride() and k.shape == v.shape and k.stride(3) == 1
    alike = (
        k.dtype == v.dtype == torch.float32 and k.is_cpu and v.is_cpu and len(k) == batch and heads % k.shape[1] == 0
    )
    if rows and alike and (native := usable(q)):
        out, scores = torch.empty_like(q), q.new_empty(batch * heads * k.shape[2])
        places = q.data_ptr(), k.data_ptr(), v.data_ptr(), out.data_ptr(), scores.data_ptr()
        sizes = batch, heads, k.shape[1], k.shape[2], dim, k.stride(0), k.stride(1)
        native.attend_all(*places, *sizes, scale, torch.get_num_threads())
        return out
    out = F.scaled_dot_product_attention(q.unflatten(1, (-1, groups)).squeeze(3), k, v, scale=scale)
    return out.flatten(1, 2).unsqueeze(2)


def _columns(reach: Reach, rows: slice, tokens: int, keys: int) -> slice:
    """The keys that any of these queries can see, where a key's place follows from its position."""
    if reach.window is None or not reach.causal:
        return slice(0, keys)
    earlier = keys - tokens
    return slice(max(0, earlier + rows.start - reach.window + 1), earlier + rows.stop)


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float) -> Tensor:
    """Attention where `mask` [R 1 T S] is True (everywhere if None), or up to the diagonal if `causal`."""
    grouped, apart = q.shape[1] != k.shape[1], k.shape[-1] != v.shape[-1]
    if apart and q.is_cpu and not is_in_torch_dispatch_mode():
        # the kernel that does not hold all scores wants one width, on a CPU: zeros change nothing
        q, k, padded = (F.pad(x, (0, max(q.shape[-1], v.shape[-1]) - x.shape[-1])) for x in (q, k, v))
        return dense(q, k, padded, mask, causal, scale)[..., : v.shape[-1]]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped)


def scored(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float,
    cap: float | None,
    sinks: Tensor | None,
    factor: Tensor | None,
    distances: Tensor | None = None,
) -> Tensor:
    """Attention whose scores are held in memory, for what happens to them."""
    tokens, groups = q.shape[2], k.shape[1]
    q = q.unflatten(1, (groups, -1)).flatten(2, 3)  # [B G (H/G T) K]: the group's heads as more queries
    scores = q @ k.transpose(-1, -2)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)) * scale
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    scores = scores.unflatten(2, (-1, tokens)).flatten(1, 2)  # [B H T S]
    if distances is not None:
        scores = scores + distances
    if factor is not None:
        scores = scores * factor
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    if sinks is not None:
        extra = sinks.float()[..., None] if sinks.ndim == 3 else sinks.float()[:, None, None]
        extra = extra.expand(*scores.shape[:3], 1)
        weights = torch.softmax(torch.cat([scores, extra], -1), -1)[..., :-1]
    else:
        weights = torch.softmax(scores, -1)
    out = weights.to(v.dtype).unflatten(1, (groups, -1)).flatten(2, 3) @ v
    return out.unflatten(2, (-1, tokens)).flatten(1, 2)


def attend_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    reach: Reach,
    scale: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    factor: Tensor | None = None,
    distances: Distances | None = None,
) -> Tensor:
    """The obvious twin of `attend`: one row, head and query at a time.

    Shapes: as for `attend`; `reach` must hold positions.
    """
    groups, visible = q.shape[1] // k.shape[1], reach.mask(slice(None), slice(None))
    near = None if distances is None else distances.scores_reference()
    out = torch.full((*q.shape[:3], v.shape[-1]), float("nan"), dtype=q.dtype)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            for t in range(q.shape[2]):
                seen = visible[b if visible.shape[0] > 1 else 0, 0, t]
                scores = k[b, h // groups, seen] @ q[b, h, t] * scale
                scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
                scores = scores if near is None else scores + near[b, h, t, seen]
                scores = scores if factor is None else scores * factor[b if len(factor) > 1 else 0, 0, t]
                of = None if sinks is None else sinks if sinks.ndim == 1 else sinks[b, :, t]
                extra = scores[:0] if of is None else of[h : h + 1].to(scores)
                out[b, h, t] = torch.softmax(torch.cat([scores, extra]), 0)[: len(scores)] @ v[b, h // groups, seen]
    return out
