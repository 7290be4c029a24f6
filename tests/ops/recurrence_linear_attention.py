"""Linear attention with a decay a head and token."""

from __future__ import annotations

import torch
from torch import Tensor

from lamina.ops.linear_attention import linear_attention, linear_attention_reference
from tests.ops.recurrences import Case

G, H, K, V = 2, 6, 5, 7


def sequences(rows: int, tokens: int, random: torch.Generator) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=random, dtype=torch.float64)

    return [normal(G, tokens, K), normal(G, tokens, K), normal(H, tokens, V), -normal(H, tokens).abs()]


def state(rows: int, random: torch.Generator) -> Tensor:
    return torch.randn(rows, H, K, V, generator=random, dtype=torch.float64)


CASES = [Case("linear attention", linear_attention, linear_attention_reference, sequences, state, decay=3)]
