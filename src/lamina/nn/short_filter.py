"""A short causal convolution beside the vector itself, and the state of one: the last inputs."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lamina.arch.short_filter import ShortFilter as ShortFilterValue
from lamina.nn.basic import Linear
from lamina.nn.registry import Place, reads
from lamina.nn.state import Keeping, Stateful
from lamina.nn.step import Step

reads(ShortFilterValue, "kernel scale heads")


class Tail(Keeping):
    """The last inputs of a convolution, zeros before the first.

    Shapes: kept [B C n]
    """

    def __init__(self, batch: int, channels: int, length: int, **like: Any) -> None:
        self.kept = torch.zeros(batch, channels, length, **like)

    @property
    def nbytes(self) -> int:
        return self.kept.nbytes

    def advance(self, x: Float[Tensor, "B T C"], step: Step) -> Float[Tensor, "B C n"]:
        """What was kept; what is kept then ends with each row's last real input."""
        before, length = self.kept, self.kept.shape[2]
        if step.padded:
            first = torch.tensor(step.lengths, device=x.device)[:, None, None]
            places = first + torch.arange(length, device=x.device)
            self.kept = torch.cat([before, x.mT], 2).gather(2, places.expand(-1, before.shape[1], -1))
        else:
            last = x[:, max(0, x.shape[1] - length) :].mT
            self.kept = torch.cat([before[:, :, last.shape[2] :], last], 2)
        return before

    def extend(self, x: Float[Tensor, "B T C"], step: Step) -> Float[Tensor, "B C S"]:
        """What was kept, and the new inputs after it."""
        return torch.cat([self.advance(x, step), x.mT], 2)

    def snapshot(self, length: int) -> Any:
        return self.kept  # replaced at a step, never written

    def restore(self, saved: Any) -> None:
        self.kept = saved

    def select(self, rows: Tensor) -> None:
        self.kept = self.kept[rows]


class Taps(nn.Module):
    """What the last inputs of each channel are multiplied by. Shapes: weight [C 1 k]"""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, 1, kernel))


class ShortFilter(Stateful):
    """scale * (x_t + sum_j w_j x_(t - j)), over the last `kernel` tokens.

    Where `heads` add taps of their own to the learned ones, both are counted back from the token itself; without, the
    token itself has the last tap, as convolutions have it.
    Shapes: x [B T C], what it was projected from [B T D] -> [B T C]
    """

    def __init__(self, value: ShortFilterValue, channels: int, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.channels = value, channels
        self.own = value.kernel > 1
        if self.own:
            self.slot = place.slot()
        self.convolution = Taps(channels, value.kernel)
        self.taps = Linear(width, value.heads * value.kernel) if value.heads else None

    def state(self, batch: int, capacity: int, **like: Any) -> Tail:
        return Tail(batch, self.channels, self.value.kernel - 1, **like)

    def forward(self, x: Float[Tensor, "B T C"], source: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T C"]:
        every = step.layers(self.slot).held(self, step).extend(x, step) if self.own else x.mT
        weight = self.convolution.weight
        if self.taps is None or self.value.heads is None:
            summed = F.conv1d(every, weight, groups=self.channels).mT
        else:
            kernel, heads = self.value.kernel, self.value.heads
            windows = every.unfold(2, kernel, 1).flip(-1).transpose(1, 2).unflatten(2, (heads, -1))  # [B T H C/H k]
            taps = self.taps(source).unflatten(-1, (heads, 1, kernel)) + weight[:, 0].unflatten(0, (heads, -1))
            summed = (windows[..., None, :] @ taps[..., None]).flatten(2)
        return (x + summed) * self.value.scale
