"""sLSTM with both of its forget gates, its state as large as it is in the reference."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from lamina.ops.slstm import Forget, slstm, slstm_reference
from tests.ops.recurrences import Case

H, P = 3, 5


def sequences(rows: int, tokens: int, random: torch.Generator) -> list[Tensor]:
    return [torch.randn(rows, H, tokens, 4, P, generator=random, dtype=torch.float64)]


def state(rows: int, random: torch.Generator) -> tuple[Tensor, ...]:
    c, n, h, m = torch.randn(4, rows, H, P, generator=random, dtype=torch.float64)
    return c, n.abs() + 0.5, h, m


def constants(random: torch.Generator) -> dict[str, Tensor]:
    return {"weight": torch.randn(4, H, P, P, generator=random, dtype=torch.float64) * P**-0.5}


def case(name: str, forget: Forget) -> Case:
    op, reference = (partial(f, forget=forget) for f in (slstm, slstm_reference))
    return Case(name, op, reference, sequences, state, constants=constants)


CASES = [case("slstm", "sigmoid"), case("slstm that forgets exponentially", "exponential")]
