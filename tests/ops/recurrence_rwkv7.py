"""The rule of RWKV-7, as the model uses it and with any two directions."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from lamina.ops.rwkv7 import rwkv7, rwkv7_reference
from tests.ops.recurrences import Case

H, K, V = 3, 5, 7


def sequences(rows: int, tokens: int, random: torch.Generator, own: bool) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=random, dtype=torch.float64)

    r, k, v = normal(H, tokens, K), normal(H, tokens, K), normal(H, tokens, V)
    g, a = -normal(H, tokens, K).abs(), normalize(normal(H, tokens, K), dim=-1)
    step = normal(H, tokens, K).sigmoid()
    return [r, k, v, g, a, -a * step if own else normalize(normal(H, tokens, K), dim=-1) * step]


def state(rows: int, random: torch.Generator) -> Tensor:
    return torch.randn(rows, H, K, V, generator=random, dtype=torch.float64)


def case(name: str, own: bool) -> Case:
    return Case(name, rwkv7, rwkv7_reference, partial(sequences, own=own), state, decay=3)


CASES = [case("rwkv-7", own=True), case("rwkv-7 with any two directions", own=False)]
