"""What a recurrence carries from token to token: as large after a million tokens as after one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lamina.nn.state import Keeping


class Recurrent(Keeping):
    """Tensors that a recurrence replaces at each step, of float32 at least, zeros before the first token.

    Shapes: kept [B ...] each, as `shapes` say
    """

    def __init__(self, batch: int, *shapes: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        like: dict[str, Any] = {"dtype": torch.promote_types(dtype, torch.float32), "device": device}
        self.kept: tuple[Tensor, ...] = tuple(torch.zeros(batch, *shape, **like) for shape in shapes)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.kept)

    def snapshot(self, length: int) -> Any:
        return self.kept  # replaced at a step, never written

    def restore(self, saved: Any) -> None:
        self.kept = saved

    def select(self, rows: Tensor) -> None:
        self.kept = tuple(part[rows] for part in self.kept)
