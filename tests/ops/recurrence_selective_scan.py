"""The selective scan. The logarithm of a decay is minus the step here, as the tests of strong decays set it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lamina.ops.selective_scan import selective_scan, selective_scan_reference
from tests.ops.recurrences import Case

H, I, N = 2, 7, 5  # noqa: E741 - channels, as everywhere


def sequences(rows: int, tokens: int, random: torch.Generator) -> list[Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, H, tokens, *shape, generator=random, dtype=torch.float64)

    return [normal(I), -normal(I).abs(), normal(N), normal(N)]


def state(rows: int, random: torch.Generator) -> Tensor:
    return torch.randn(rows, H, I, N, generator=random, dtype=torch.float64)


def constants(random: torch.Generator) -> dict[str, Tensor]:
    rate = torch.randn(H, I, N, generator=random, dtype=torch.float64).abs() + 0.1
    return {"rate": rate, "skip": torch.randn(H, I, generator=random, dtype=torch.float64)}


def by_decay(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, g, b, c, **options: function(x, -g, b, c, **options)


CASES = [
    Case(
        "selective scan",
        by_decay(selective_scan),
        by_decay(selective_scan_reference),
        sequences,
        state,
        decay=1,
        constants=constants,
    )
]
