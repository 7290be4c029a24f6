"""Delta rules with a decay for each row of the state: unit keys or not, and keys that several heads share."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from lamina.ops.vector_delta_rule import vector_delta_rule, vector_delta_rule_reference
from tests.ops.recurrences import Case

G, H, K, V = 2, 4, 5, 7


def sequences(rows: int, tokens: int, random: torch.Generator, groups: int = G) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=random, dtype=torch.float64)

    q, k, v = normal(groups, tokens, K), normal(groups, tokens, K) * K**-0.5, normal(H, tokens, V)
    return [q, k, v, -normal(H, tokens, K).abs(), normal(H, tokens).sigmoid()]


def state(rows: int, random: torch.Generator) -> Tensor:
    return torch.randn(rows, H, K, V, generator=random, dtype=torch.float64)


def case(name: str, groups: int = G, **options: bool) -> Case:
    op, reference = (partial(f, **options) for f in (vector_delta_rule, vector_delta_rule_reference))
    return Case(name, op, reference, partial(sequences, groups=groups), state, decay=3)


CASES = [
    case("delta rule with a vector of decays", groups=H),
    case("delta rule with a vector of decays, keys shared"),
    case("delta rule with a vector of decays, of any keys", unit=False),
]
