"""What the tests of recurrent ops run on: a case an op, from the files recurrence_*.py beside this one."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """An op, its reference of a token at a time, and what makes random sequences and a state for them.

    `sequences(rows, tokens, random)` gives tensors of float64 with tokens in their dimension 2, `state(rows, random)`
    what the op's `state` takes: a tensor or several. `decay` is the place among the sequences of the logarithm of a
    decay, if there is one. `constants` are arguments of both that have no tokens, by name.
    """

    name: str
    op: Callable[..., Any]
    reference: Callable[..., Any]
    sequences: Callable[[int, int, torch.Generator], Sequence[Tensor]]
    state: Callable[[int, torch.Generator], Any]
    decay: int | None = None
    constants: Callable[[torch.Generator], dict[str, Tensor]] = lambda random: {}

    def __str__(self) -> str:
        return self.name


def flat(state: Any) -> tuple[Tensor, ...]:
    return (state,) if isinstance(state, Tensor) else tuple(state)


def single(arguments: Sequence[Tensor]) -> Any:
    return [x.float() for x in arguments]


def close(got: Sequence[Tensor], exact: Sequence[Tensor], tolerance: float = 2e-6) -> bool:
    """Asserts that tensors equal others, relative to the largest number of each."""
    for a, b in zip(got, exact, strict=True):
        assert a.shape == b.shape
        assert float((a.double() - b).detach().abs().max()) <= tolerance * float(b.detach().abs().max())
    return True


def cases() -> list[Case]:
    files = sorted(Path(__file__).parent.glob("recurrence_*.py"))
    return [case for file in files for case in importlib.import_module(f"tests.ops.{file.stem}").CASES]
