"""Linear attention with a decay for each number of a key."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.ops.gated_linear_attention import gated_linear_attention, gated_linear_attention_reference
from tests.ops.recurrences import Case

G, H, K, V = 2, 6, 5, 7


def sequences(rows: int, tokens: int, random: torch.Generator) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=random, dtype=torch.float64)

    return [normal(G, tokens, K), normal(G, tokens, K), normal(H, tokens, V), -normal(H, tokens, K).abs()]


def state(rows: int, random: torch.Generator) -> Tensor:
    return torch.randn(rows, H, K, V, generator=random, dtype=torch.float64)


OPS = gated_linear_attention, gated_linear_attention_reference
CASES = [Case("gated linear attention", *OPS, sequences, state, decay=3)]
