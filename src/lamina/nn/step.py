"""What all parts of one forward pass share: where its tokens stand, and what follows from that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lamina.arch.mixers.attention import LengthTemperature
from lamina.arch.position import (
    DynamicScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    Rotary,
    YarnScaling,
)
from lamina.nn.registry import reads
from lamina.ops.attention import Reach
from lamina.ops.rotary import tables

reads(Rotary, "base dim layout scaling turning backwards learned sections")
reads(DynamicScaling, "factor original_context")
reads(LinearScaling, "factor")
reads(Llama3Scaling, "factor low_frequency high_frequency original_context")
reads(LongRopeScaling, "short long original_context attention_factor")
reads(YarnScaling, "factor original_context beta_fast beta_slow attention_factor truncate")


class Step:
    """T new tokens for each of B rows, row b starting at position `starts[b]`.

    Fields: `lengths` holds how many of a row's T tokens are real (padding stands on the right); `uniform`
    says that all rows start alike and have no padding. `layers` are the states by slot. `shared` is what earlier
    parts of the pass leave for later ones, under names of their own; `frequencies` what a model learned of those of its
    rotary embeddings, by how many there are. A token of text has the same position in every section of a rotary one.
    """

    def __init__(
        self,
        ids: Tensor,
        dtype: torch.dtype,
        layers: Callable[[int], Any],
        starts: list[int],
        lengths: list[int] | None,
        bidirectional: bool = False,
        memory: Tensor | None = None,
        memory_mask: Tensor | None = None,
    ) -> None:
        self.ids = ids
        self.batch, self.tokens = ids.shape
        self.shared: dict[Any, Any] = {}
        self.inputs: Tensor | None = None  # what the embedding leaves for the blocks themselves, [B T N P]
        self.frequencies: Mapping[str, Tensor] = {}
        self.device, self.dtype = ids.device, dtype
        self._layers, self._first = layers, 0
        self.starts = starts
        self.lengths = lengths or [self.tokens] * self.batch
        padded = any(n != self.tokens for n in self.lengths)
        self.uniform = not padded and len(set(starts)) == 1
        self.padded = padded
        self.bidirectional = bidirectional
        self.memory, self.memory_mask = memory, memory_mask
        self.has_memory = memory is not None
        self._tables: dict[Rotary, tuple[Tensor, Tensor]] = {}
        self._reaches: dict[tuple[str, int | None, int | None], Reach] = {}

    def begin(self, first: int) -> None:
        """A pass through the stack, whose states are numbered from `first`."""
        self._first = first

    def layers(self, slot: int) -> Any:
        """The state in a slot."""
        return self._layers(self._first + slot)

    @property
    def start(self) -> int:
        """The position of the first new token, where all rows agree."""
        return self.starts[0]

    @property
    def together(self) -> bool:
        """Whether all rows start at the same position (they may still differ in length)."""
        return len(set(self.starts)) == 1

    @cached_property
    def positions(self) -> Tensor:
        """[1 T] where all rows start alike, else [B T]."""
        offsets = torch.arange(self.tokens, device=self.device)
        starts = self.starts[:1] if self.together else self.starts
        return torch.tensor(starts, device=self.device)[:, None] + offsets

    @cached_property
    def real(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row, column and position of every token that is not padding."""
        lengths = torch.tensor(self.lengths, device=self.device)[:, None]
        offsets = torch.arange(self.tokens, device=self.device)
        rows, columns = (offsets < lengths).nonzero(as_tuple=True)
        return rows, columns, torch.tensor(self.starts, device=self.device)[rows] + columns

    @cached_property
    def padding(self) -> Tensor | None:
        """How many tokens of each row are real, [B]; None where all are."""
        return torch.tensor(self.lengths, device=self.device) if self.padded else None

    def rotary(self, rotary: Rotary) -> tuple[Tensor, Tensor]:
        """Cosines and sines for the new tokens, [1|B 1 T K], computed once a step for each rotary value."""
        if rotary not in self._tables:
            self._tables[rotary] = self.angles(rotary, self.positions)
        return self._tables[rotary]

    def held_rotary(
        self, rotary: Rotary, reach: Reach, count: int, window: int | None, chunk: int | None
    ) -> tuple[Tensor, Tensor]:
        """Cosines and sines for the `count` tokens that are reached, [1|B 1 count K], computed once a step."""
        if (key := (rotary, window, chunk)) not in self.shared:
            self.shared[key] = self.angles(rotary, self.held(reach, count, chunk is not None))
        return self.shared[key]

    def held(self, reach: Reach, count: int, chunked: bool) -> Tensor:
        """The positions [1|B count] of the tokens reached; where no mask is needed they lie in a ring of so many."""
        if self.bidirectional or reach.keys is not None:
            return self.positions if reach.keys is None else reach.keys
        offsets = torch.arange(count, device=self.device)[None]
        return self.start - (count - 1 - offsets if chunked else (self.start - offsets) % count)

    def angles(self, rotary: Rotary, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines for positions [1|B T], [1|B 1 T K]."""
        totals = [start + n for start, n in zip(self.starts, self.lengths, strict=True)]
        learned = self.frequencies[f"scale_{rotary.dim // 2}"] if rotary.learned else None
        if len({rotary.regime(total) for total in totals}) == 1:
            cos, sin = tables(rotary, positions, totals[0], self.dtype, learned)
        else:
            positions = positions.expand(self.batch, -1)
            rows = [tables(rotary, positions[b], total, self.dtype, learned) for b, total in enumerate(totals)]
            cos, sin = (torch.stack(part) for part in zip(*rows, strict=True))
        return cos[:, None], sin[:, None]

    def temperature(self, value: LengthTemperature) -> Tensor:
        """What queries at the positions of the new tokens are multiplied by, [1|B 1 T 1]."""
        place = (self.positions + value.first) / value.floor
        growth = torch.log1p(place.floor()) if value.steps else torch.log(place.clamp(min=1.0))
        return (1.0 + value.scale * growth).to(self.dtype)[:, None, :, None]

    def reach(self, kind: str, window: int | None, chunk: int | None, make: Callable[[], Reach]) -> Reach:
        """Which keys are seen, worked out once a step for each kind of state, window and chunk."""
        key = kind, window, chunk
        if key not in self._reaches:
            self._reaches[key] = make()
        return self._reaches[key]

    def fresh_reach(self, window: int | None, chunk: int | None = None) -> Reach:
        """The reach of new tokens among themselves, with nothing before them."""
        if self.bidirectional:
            if not self.padded:
                return Reach(everything=True)
            ends = torch.tensor(self.lengths, device=self.device)[:, None]
            return Reach(self.positions, self.positions, causal=False, ends=ends)
        if window is None or window >= self.tokens:
            return Reach(square=True, queries=self.positions, keys=self.positions)
        return Reach(self.positions, self.positions, window=window, chunk=chunk)

    @cached_property
    def attended(self) -> Tensor | None:
        """[B T 1]: 1 for tokens that see any of the memory; None where all do."""
        if self.memory_mask is None:
            return None
        return self.memory_mask.any(-1, keepdim=True).to(self.dtype)
