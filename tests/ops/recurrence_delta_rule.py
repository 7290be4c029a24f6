"""Gated delta rules, with and without unit keys, and with several heads of values for one of keys."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from lamina.ops.delta_rule import gated_delta_rule, gated_delta_rule_reference
from tests.ops.recurrences import Case

G, H, K, V = 2, 6, 5, 7


def sequences(rows: int, tokens: int, random: torch.Generator) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=random, dtype=torch.float64)

    q, k, v = normal(G, tokens, K), normal(G, tokens, K) * K**-0.5, normal(H, tokens, V)
    return [q, k, v, -normal(H, tokens).abs(), normal(H, tokens).sigmoid()]


def state(rows: int, random: torch.Generator) -> Tensor:
    return torch.randn(rows, H, K, V, generator=random, dtype=torch.float64)


def case(name: str, **options: bool) -> Case:
    op, reference = (partial(f, **options) for f in (gated_delta_rule, gated_delta_rule_reference))
    return Case(name, op, reference, sequences, state, decay=3)


CASES = [case("gated delta rule"), case("gated delta rule of any keys", unit=False)]
