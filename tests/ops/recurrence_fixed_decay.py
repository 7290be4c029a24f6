"""Linear attention with one decay a head."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.ops.fixed_decay import fixed_decay, fixed_decay_reference
from tests.ops.recurrences import Case

G, H, K, V = 2, 6, 5, 7


def sequences(rows: int, tokens: int, random: torch.Generator) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=random, dtype=torch.float64)

    return [normal(G, tokens, K), normal(G, tokens, K), normal(H, tokens, V)]


def state(rows: int, random: torch.Generator) -> Tensor:
    return torch.randn(rows, H, K, V, generator=random, dtype=torch.float64)


def moderate(random: torch.Generator) -> dict[str, Tensor]:
    return {"g": -torch.rand(H, generator=random, dtype=torch.float64)}


def strong(random: torch.Generator) -> dict[str, Tensor]:
    """From none at all to one that leaves nothing."""
    return {"g": torch.tensor([0.0, -1e-6, -0.5, -50.0, -1e4, -2.0], dtype=torch.float64)}


OPS = fixed_decay, fixed_decay_reference
CASES = [
    Case("fixed decay", *OPS, sequences, state, constants=moderate),
    Case("strong fixed decay", *OPS, sequences, state, constants=strong),
]
