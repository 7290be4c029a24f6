"""The recurrence of Mamba-2, with heads that share B and C."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.ops.ssd import ssd, ssd_reference
from tests.ops.recurrences import Case

G, H, N, P = 2, 6, 5, 7


def sequences(rows: int, tokens: int, random: torch.Generator) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=random, dtype=torch.float64)

    c, b, x = normal(G, tokens, N), normal(G, tokens, N), normal(H, tokens, P)
    return [c, b, x, -normal(H, tokens).abs(), normal(H, tokens).abs()]


def state(rows: int, random: torch.Generator) -> Tensor:
    return torch.randn(rows, H, P, N, generator=random, dtype=torch.float64)


def skip(random: torch.Generator) -> dict[str, Tensor]:
    return {"skip": torch.randn(H, generator=random, dtype=torch.float64)}


CASES = [Case("state-space duality", ssd, ssd_reference, sequences, state, decay=3, constants=skip)]
