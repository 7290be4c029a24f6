"""Sparse attention: the keys that were chosen for a query are fetched, and only they are attended to."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lamina.ops.attention import Reach, attend
from lamina.ops.choosing import BUDGET

NOTHING = torch.empty(0, dtype=torch.int32)


@dataclass(frozen=True)
class Choice:
    """What each query reads: the first `dense` ones all that they see, the others what was chosen for them.

    Shapes: `runs` int32 [B C t k] holds, for each of C equal shares of the heads, the runs of `size` tokens that are
    read, -1 standing for none; `positions` [1|B t] are those of the t queries that are not dense. With a `tail`, a
    query also reads the tokens after its last whole run. No query reads a token after itself.
    """

    dense: int
    runs: Int[Tensor, "B C t k"] = NOTHING
    positions: Int[Tensor, "R t"] = NOTHING
    size: int = 1
    tail: bool = False

    @property
    def seen(self) -> int:
        """How many keys the dense queries see between them."""
        return int(self.positions[:, 0].max())

    @property
    def slots(self) -> int:
        """How many keys are fetched for a query."""
        return self.runs.shape[-1] * self.size + (self.size - 1 if self.tail else 0)

    def columns(self, row: int, share: int, queries: slice) -> tuple[Int[Tensor, "q s"], Bool[Tensor, "q s"]]:
        """The keys to fetch for some of a row's queries, by position, and which of them are read."""
        last = self.positions[row % len(self.positions), queries, None]
        within = torch.arange(self.size, device=last.device)
        # the tokens of a run that is none would lie before the first token
        found = (self.runs[row, share, queries, :, None].long() * self.size + within).flatten(-2)
        if self.tail:
            found = torch.cat([found, (last + 1) // self.size * self.size + within[:-1]], -1)
        return found, (found >= 0) & (found <= last)


def leading(reach: Reach, queries: int, keys: int) -> Reach:
    """The reach of the first queries, to the first keys."""
    if reach.queries is None or reach.keys is None:
        return reach
    return replace(reach, queries=reach.queries[:, :queries], keys=reach.keys[:, :keys])


def attend_sparse(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S V"],
    reach: Reach,
    choice: Choice,
    scale: float,
    softcap: float | None = None,
    sinks: Float[Tensor, " H"] | None = None,
    factor: Float[Tensor, "R 1 T 1"] | None = None,
) -> Float[Tensor, "B H T V"]:
    """`attend` of each query to what it reads. A key's place must be its position."""
    n, tokens, rest = choice.dense, q.shape[2], (scale, softcap, sinks)
    before, after = (None, None) if factor is None else (factor[:, :, :n], factor[:, :, n:])
    if n == tokens:
        return attend(q, k, v, reach, *rest, before)
    out = attend_chosen(q[:, :, n:], k, v, choice, *rest, after)
    if n == 0:
        return out
    keys = choice.seen
    dense = attend(q[:, :, :n], k[:, :, :keys], v[:, :, :keys], leading(reach, n, keys), *rest, before)
    return torch.cat([dense, out], 2)


def attend_chosen(
    q: Float[Tensor, "B H t K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S V"] | int,
    choice: Choice,
    scale: float,
    softcap: float | None = None,
    sinks: Float[Tensor, " H"] | None = None,
    factor: Float[Tensor, "R 1 t 1"] | None = None,
) -> Float[Tensor, "B H t V"]:
    """Attention to the chosen keys, of the queries that read a choice.

    Where `v` is a number, the first `v` numbers of a key are its value. The rest is as for `attend`.
    """
    (batch, heads), groups, shares = q.shape[:2], k.shape[1], choice.runs.shape[1]
    parts = math.lcm(shares, groups)  # of the heads: those of a part read the same keys
    given = []
    for row in range(batch):
        turns = None if factor is None else factor[row % len(factor), 0, :, :, None]
        for part in range(parts):
            of_part, group = slice(part * heads // parts, (part + 1) * heads // parts), part * groups // parts
            sunk = None if sinks is None else sinks[of_part].float()[:, None]
            values = v if isinstance(v, int) else v[row, group]
            queries, read = q[row, of_part].transpose(0, 1) * scale, (choice, row, part * shares // parts)
            given.append(_fetching(queries, k[row, group], values, *read, softcap, sunk, turns))
    return torch.stack(given).unflatten(0, (batch, parts)).transpose(2, 3).flatten(1, 2)


def _fetching(
    q: Float[Tensor, "t h K"],
    k: Float[Tensor, "S K"],
    v: Float[Tensor, "S V"] | int,
    choice: Choice,
    row: int,
    share: int,
    softcap: float | None,
    sinks: Float[Tensor, "h 1"] | None,
    factor: Float[Tensor, "t 1 1"] | None,
) -> Float[Tensor, "t h V"]:
    """Attention of heads that read the same keys of one row: a few queries at a time, whose keys are held together."""
    pieces, width = [], k.shape[-1] + (0 if isinstance(v, int) else v.shape[-1])
    step = max(1, BUDGET // (q.element_size() * choice.slots * width))
    for start in range(0, len(q), step):
        piece = slice(start, min(start + step, len(q)))
        columns, read = choice.columns(row, share, piece)
        places = columns.clamp(0, len(k) - 1).flatten()
        keys = k.index_select(0, places).view(*columns.shape, -1).to(q.dtype)
        if isinstance(v, int):
            values = keys[..., :v]
        else:
            values = v.index_select(0, places).view(*columns.shape, -1).to(q.dtype)
        scores = (q[piece] @ keys.mT).float()
        scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
        scores = scores if factor is None else scores * factor[piece]
        scores = scores.masked_fill(~read[:, None], -math.inf)
        if sinks is None:
            weights = torch.softmax(scores, -1)
        else:
            extra = sinks.expand(*scores.shape[:2], 1)
            weights = torch.softmax(torch.cat([scores, extra], -1), -1)[..., :-1]
        pieces.append(weights.to(values.dtype) @ values)
    return torch.cat(pieces)


def attend_sparse_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    choice: Choice,
    scale: float,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    factor: Tensor | None = None,
) -> Tensor:
    """The obvious twin of `attend_sparse`: one row, head and query at a time; `positions` [R T] are the queries'."""
    heads, shares = q.shape[1], choice.runs.shape[1]
    out = torch.full((*q.shape[:3], v.shape[-1]), float("nan"), dtype=q.dtype)
    for b in range(q.shape[0]):
        for h in range(heads):
            for t in range(q.shape[2]):
                last = int(positions[b % len(positions), t])
                read = set(range(last + 1))
                if t >= choice.dense:
                    runs = choice.runs[b, h * shares // heads, t - choice.dense].tolist()
                    chosen = {run * choice.size + i for run in runs if run >= 0 for i in range(choice.size)}
                    unfinished = range((last + 1) // choice.size * choice.size, last + 1) if choice.tail else ()
                    read &= chosen | set(unfinished)
                places, group = torch.tensor(sorted(read)), h * k.shape[1] // heads
                scores = k[b, group, places] @ q[b, h, t] * scale
                scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
                scores = scores if factor is None else scores * factor[b % len(factor), 0, t]
                extra = scores[:0] if sinks is None else sinks[h : h + 1].to(scores)
                out[b, h, t] = torch.softmax(torch.cat([scores, extra]), 0)[: len(places)] @ v[b, group, places]
    return out
