"""The recurrence of RG-LRU, in rows that go on; those that begin a text: test_rg_lru.py."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.ops.rg_lru import rg_lru, rg_lru_reference
from tests.ops.recurrences import Case

H, I = 2, 7  # noqa: E741 - channels, as everywhere


def sequences(rows: int, tokens: int, random: torch.Generator) -> list[Tensor]:
    x, g = (torch.randn(rows, H, tokens, I, generator=random, dtype=torch.float64) for _ in range(2))
    return [x, -g.abs() - 0.01]


def state(rows: int, random: torch.Generator) -> Tensor:
    return torch.randn(rows, H, I, generator=random, dtype=torch.float64)


CASES = [Case("RG-LRU", rg_lru, rg_lru_reference, sequences, state, decay=1)]
