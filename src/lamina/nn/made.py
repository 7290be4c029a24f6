"""What a state was made for, by which one of another model is told before anything is computed with it."""

from __future__ import annotations

from itertools import islice
from typing import Any, NamedTuple

import torch

from lamina.arch import Architecture
from lamina.arch.diff import Diff, differences
from lamina.errors import LaminaError

STATE = "a model continues from what its own init_state gave"
SNAPSHOT = "a state is restored from what its own snapshot gave"


def given(value: Any, kind: type, expected: str) -> None:
    """Raises: LaminaError if a value is of another type than what is expected."""
    if not isinstance(value, kind):
        raise LaminaError(f"{expected}, not from a {type(value).__name__}")


class Made(NamedTuple):
    """The architecture, and what decides the sizes of a state's parts.

    Units: capacity and rewind in tokens
    """

    arch: Architecture
    dtype: torch.dtype
    device: torch.device
    capacity: int = 0
    rewind: int = 0

    def check(self, here: Made, what: str) -> None:
        """Raises: LaminaError if `what`, made for this, is used where another architecture, type or device is."""
        if self.arch is not here.arch and self.arch != here.arch:
            found = [*islice((d for d in differences(self.arch, here.arch) if d.path != "name"), 2)]
            if found:
                more = ", and more" if len(found) > 1 else ""
                raise LaminaError(
                    f"{what} was made for another architecture ({Diff(found[:1])!s:.120}{more}); "
                    "each model continues from its own init_state"
                )
        if (self.dtype, self.device) != (here.dtype, here.device):
            raise LaminaError(f"{what} holds {_named(self)} and what it is used with {_named(here)}; they must agree")

    def check_sizes(self, here: Made, what: str) -> None:
        """Raises: LaminaError if `what` is put into a state that was made for another number of tokens."""
        self.check(here, what)
        for name, left, right in (("capacity", self.capacity, here.capacity), ("rewind", self.rewind, here.rewind)):
            if left != right:
                raise LaminaError(
                    f"{what} was taken of a state made with {name} {left} and this one has {right}; they must agree"
                )


def _named(made: Made) -> str:
    return f"{str(made.dtype).removeprefix('torch.')} on {made.device}"
