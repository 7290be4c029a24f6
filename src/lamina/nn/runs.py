"""The state of what draws tokens together: an entry for each whole run of tokens, and what the unfinished run needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lamina.nn.state import Keeping
from lamina.nn.step import Step

Drawn = Callable[[Tensor, Tensor], Tensor]
"""Makes entries [B n K] of the tokens of runs [B n size C], and of the numbers of those runs [B n]."""


def aligned(open_run: Tensor, new: Float[Tensor, "B T C"], step: Step, size: int) -> Float[Tensor, "B n size C"]:
    """The new tokens in runs, after those of each row's unfinished run; the last run is never whole.

    Shapes: open_run [B <size C] is zero beyond what it holds
    """
    held = torch.tensor([start % size for start in step.starts], device=new.device)
    most = max(start % size + n for start, n in zip(step.starts, step.lengths, strict=True))
    runs = new.new_zeros(len(new), (most // size + 1) * size, new.shape[2])
    runs[:, : open_run.shape[1]] = open_run
    rows, columns, _ = step.real
    runs[rows, held[rows] + columns] = new[rows, columns]
    return runs.unflatten(1, (-1, size))


class RunCache(Keeping):
    """An entry of K numbers for each whole run of `size` tokens, and `slots` tokens of C numbers of the unfinished one.

    With fewer slots than an unfinished run has tokens there is one, which holds their sum.
    Shapes: `kept` [B capacity//size K]; `open` [B slots C]
    """

    def __init__(self, batch: int, capacity: int, size: int, kept: int, slots: int, token: int, **like: Any) -> None:
        self.kept = torch.zeros(batch, capacity // size, kept, **like)
        self.open = torch.zeros(batch, slots, token, **like)
        self.size = size

    @property
    def nbytes(self) -> int:
        return self.kept.nbytes + self.open.nbytes

    def drawn(self, new: Float[Tensor, "B T C"], step: Step, make: Drawn) -> Float[Tensor, "B n K"]:
        """The entries of all whole runs that any row holds, after adding those that the new tokens complete."""
        size = self.size
        runs, batch = aligned(self.open, new, step, size), torch.arange(len(new), device=new.device)
        first = torch.tensor([start // size for start in step.starts], device=new.device)
        ends = [start + n for start, n in zip(step.starts, step.lengths, strict=True)]
        whole = torch.tensor([end // size for end in ends], device=new.device) - first
        rest = runs[batch, whole]
        slots = self.open.shape[1]
        self.open = rest[:, :slots] if slots >= size - 1 else rest.sum(1, keepdim=True)
        if (made := runs.shape[1] - 1) > 0:
            numbers = first[:, None] + torch.arange(made, device=new.device)
            rows, columns = (numbers < (first + whole)[:, None]).nonzero(as_tuple=True)
            self.kept[rows, numbers[rows, columns]] = make(runs[:, :-1], numbers)[rows, columns]
        return self.kept[:, : max(ends) // size]

    def snapshot(self, length: int) -> Any:
        return self.kept[:, : length // self.size].clone(), self.open  # `open` is never written in place

    def restore(self, saved: Any) -> None:
        kept, self.open = saved
        self.kept[:, : kept.shape[1]] = kept

    def select(self, rows: Tensor) -> None:
        self.kept, self.open = self.kept[rows], self.open[rows]
