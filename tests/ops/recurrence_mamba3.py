"""The recurrence of Mamba-3, of one row and of several."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from lamina.ops.mamba3 import mamba3, mamba3_reference
from tests.ops.recurrences import Case

G, H, N, P, A = 2, 6, 9, 7, 3


def sequences(rows: int, tokens: int, random: torch.Generator, rank: int) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=random, dtype=torch.float64)

    q, k, x = normal(G, tokens, rank, N), normal(G, tokens, rank, N), normal(H, tokens, P)
    steps, lean = normal(H, tokens).abs(), normal(H, tokens).sigmoid()
    return [q, k, x, -normal(H, tokens).abs(), steps, lean, normal(1, tokens, A)]


def state(rows: int, random: torch.Generator, rank: int) -> tuple[Tensor, ...]:
    angle = 6.0 * torch.rand(rows, H, A, generator=random, dtype=torch.float64)
    shapes = (P, N), (rank, N), (P,)
    return angle, *(torch.randn(rows, H, *shape, generator=random, dtype=torch.float64) for shape in shapes)


def constants(random: torch.Generator, rank: int) -> dict[str, Tensor]:
    shapes = {"biases": (2, H, rank, N), "up": (H, rank, P)}
    return {name: torch.randn(*shape, generator=random, dtype=torch.float64) for name, shape in shapes.items()}


def case(name: str, rank: int) -> Case:
    made = (partial(f, rank=rank) for f in (sequences, state))
    return Case(name, mamba3, mamba3_reference, *made, decay=3, constants=partial(constants, rank=rank))


CASES = [case("mamba-3", 1), case("mamba-3 of rank 3", 3)]
