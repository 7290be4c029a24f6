"""mLSTM, whose state is a matrix, a vector and a maximum a head."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lamina.ops.mlstm import mlstm, mlstm_reference
from tests.ops.recurrences import Case

H, K, V = 3, 5, 7


def sequences(rows: int, tokens: int, random: torch.Generator) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, generator=random, dtype=torch.float64)

    q, k, v = normal(H, tokens, K), normal(H, tokens, K), normal(H, tokens, V)
    return [q, k, v, logsigmoid(normal(H, tokens)), 2.0 * normal(H, tokens)]


def state(rows: int, random: torch.Generator) -> tuple[Tensor, ...]:
    shapes = (rows, H, K, V), (rows, H, K), (rows, H)
    return tuple(torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes)


def case(name: str, eps: float) -> Case:
    return Case(name, partial(mlstm, eps=eps), partial(mlstm_reference, eps=eps), sequences, state, decay=3)


CASES = [case("mlstm", 1e-6), case("mlstm with much below the fraction line", 0.3)]
