"""What a model remembers of the tokens before: owned by the caller, one typed part for each mechanism."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Self

import torch
from torch import Tensor

from lamina.errors import LaminaError
from lamina.nn.basic import Part
from lamina.nn.made import SNAPSHOT, Made, given
from lamina.nn.step import Step
from lamina.ops.attention import Reach


class LayerState(Protocol):
    """What one mixer keeps. `snapshot` returns a copy that `restore` puts back.

    `spare` is how many of the last tokens can be taken back by a row's length alone, for nothing of before was lost.
    """

    @property
    def nbytes(self) -> int: ...
    @property
    def spare(self) -> float: ...
    def snapshot(self, length: int) -> Any: ...
    def restore(self, saved: Any) -> None: ...
    def select(self, rows: Tensor) -> None: ...


class Stateful(Part):
    """A mixer that remembers: it makes its own state, which stands in slot `slot` of a decoder's.

    One that is not `own` reads what another left, and makes none.
    """

    slot: int
    own: bool = True

    def state(self, batch: int, capacity: int, **like: Any) -> LayerState:
        """An empty state for `batch` rows of at most `capacity` tokens; `like` holds its dtype and device."""
        raise TypeError(f"{type(self).__name__} does not make its state")


def states(module: Part | Any, batch: int, capacity: int, rewind: int = 0, **like: Any) -> list[LayerState]:
    """The empty states of all mixers within a module, by slot; rings keep `rewind` tokens more than are seen."""
    owners = sorted((m for m in module.modules() if isinstance(m, Stateful) and m.own), key=lambda m: m.slot)
    made = [owner.state(batch, capacity, **like) for owner in owners]
    for layer in made if rewind else ():
        if isinstance(layer, WindowCache):
            layer.lengthen(rewind, capacity)
    return made


class Fresh:
    """The state of a forward pass that keeps nothing: new tokens see each other only."""

    nbytes = 0

    def held(self, owner: Stateful, step: Step) -> Any:
        """The state that its owner makes, for the new tokens alone."""
        return owner.state(step.batch, step.tokens, dtype=step.dtype, device=step.device)

    def extend(
        self, new: Sequence[Tensor], step: Step, window: int | None = None, chunk: int | None = None
    ) -> tuple[Sequence[Tensor], Reach]:
        return new, step.reach("fresh", window, chunk, lambda: step.fresh_reach(window, chunk))

    def memory(self, k: Tensor | None, v: Tensor | None) -> tuple[Tensor, Tensor]:
        assert k is not None
        assert v is not None
        return k, v


class Keeping:
    """A state that is read and written the same way whether it lasts or serves one forward pass (see `Fresh.held`)."""

    spare: float = 0

    def held(self, owner: Stateful, step: Step) -> Self:
        return self


class FullCache:
    """What every token leaves, up to a capacity: keys and values, or a latent, or whatever else a mixer reads again.

    Shapes: `kept` holds one [B G capacity K] for each (G, K) of `sizes`
    """

    def __init__(self, batch: int, capacity: int, *sizes: tuple[int, int], **like: Any) -> None:
        # zeros, not empty: an unseen value is multiplied by a weight of zero, and must be finite
        self.kept = [torch.zeros(batch, heads, capacity, dim, **like) for heads, dim in sizes]

    spare = math.inf

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.kept)

    def extend(
        self, new: Sequence[Tensor], step: Step, window: int | None = None, chunk: int | None = None
    ) -> tuple[Sequence[Tensor], Reach]:
        """Writes what the new tokens leave; returns all that any row holds, and who sees what."""
        if step.uniform:
            end = step.start + step.tokens
            for part, added in zip(self.kept, new, strict=True):
                part.narrow(2, step.start, step.tokens).copy_(added)
        else:
            rows, columns, positions = step.real
            end = max(start + n for start, n in zip(step.starts, step.lengths, strict=True))
            for part, added in zip(self.kept, new, strict=True):
                part[rows, :, positions] = added[rows, :, columns]
        return [part[:, :, :end] for part in self.kept], step.reach(
            "full", window, chunk, lambda: self._reach(end, step)
        )

    @staticmethod
    def _reach(end: int, step: Step) -> Reach:
        if step.uniform and step.tokens == 1:
            return Reach(everything=True)
        keys = torch.arange(end, device=step.device)[None]
        return Reach(step.positions, keys, square=step.together and step.start == 0 and end == step.tokens)

    def snapshot(self, length: int) -> Any:
        return [part[:, :, :length].clone() for part in self.kept]

    def restore(self, saved: Any) -> None:
        for part, before in zip(self.kept, saved, strict=True):
            part[:, :, : before.shape[2]] = before

    def select(self, rows: Tensor) -> None:
        self.kept = [part[rows] for part in self.kept]


class WindowCache:
    """What the last tokens only leave: a ring of as many slots as a query can see.

    With `chunked`, a query sees none of an earlier run of as many tokens (Llama 4).
    Shapes: `kept` holds one [B G W K] for each (G, K) of `sizes`; position p stands in slot p mod W
    """

    def __init__(self, batch: int, slots: int, *sizes: tuple[int, int], chunked: bool = False, **like: Any) -> None:
        self.kept = [torch.zeros(batch, heads, slots, dim, **like) for heads, dim in sizes]
        self.slots, self.chunked = slots, chunked
        self.spare: float = 0

    def lengthen(self, spare: int, capacity: int) -> None:
        """Room for as many tokens more, while the ring is empty: so many of the last can be taken back."""
        slots = min(self.slots + spare, capacity)
        self.kept = [part.new_zeros(*part.shape[:2], slots, part.shape[3]) for part in self.kept]
        self.slots, self.spare = slots, math.inf if slots == capacity else spare

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.kept)

    def extend(
        self, new: Sequence[Tensor], step: Step, window: int | None = None, chunk: int | None = None
    ) -> tuple[Sequence[Tensor], Reach]:
        """Reads what the ring holds, in order of position, before the new tokens overwrite it."""
        slots = self.slots
        if step.uniform and step.tokens == 1 and not self.spare:
            slot = step.start % slots
            held = slot + 1 if self.chunked else min(step.start + 1, slots)
            for part, added in zip(self.kept, new, strict=True):
                part[:, :, slot] = added[:, :, 0]
            return [part[:, :, :held] for part in self.kept], Reach(everything=True)
        earlier = min(max(step.starts), slots)
        seen = list(new)
        if earlier:
            places = torch.tensor(step.starts, device=step.device)[:, None] - earlier
            places = (places + torch.arange(earlier, device=step.device)) % slots  # [B earlier]
            rows = torch.arange(step.batch, device=step.device)[:, None]
            before = [part[rows, :, places].transpose(1, 2) for part in self.kept]
            seen = [torch.cat(both, 2) for both in zip(before, new, strict=True)]
        rows, columns, positions = step.real
        kept = columns >= torch.tensor(step.lengths, device=step.device)[rows] - slots
        rows, columns, positions = rows[kept], columns[kept], positions[kept] % slots
        for part, added in zip(self.kept, new, strict=True):
            part[rows, :, positions] = added[rows, :, columns]
        return seen, step.reach(f"ring{slots}", window, chunk, lambda: self._reach(earlier, window, chunk, step))

    @staticmethod
    def _reach(earlier: int, window: int | None, chunk: int | None, step: Step) -> Reach:
        if not earlier:
            return step.fresh_reach(window, chunk)
        before = torch.arange(-earlier, 0, device=step.device) + step.positions[:, :1]
        return Reach(step.positions, torch.cat([before, step.positions], 1), window=window, chunk=chunk)

    def snapshot(self, length: int) -> Any:
        return [part.clone() for part in self.kept]

    def restore(self, saved: Any) -> None:
        for part, before in zip(self.kept, saved, strict=True):
            part[:] = before

    def select(self, rows: Tensor) -> None:
        self.kept = [part[rows] for part in self.kept]


def cache(
    batch: int,
    capacity: int,
    *sizes: tuple[int, int],
    window: int | None = None,
    chunk: int | None = None,
    **like: Any,
) -> FullCache | WindowCache:
    """The empty cache of a mixer that sees all tokens, or a window or chunk of them."""
    if seen := window or chunk:
        return WindowCache(batch, min(seen, capacity), *sizes, chunked=chunk is not None, **like)
    return FullCache(batch, capacity, *sizes, **like)


class MemoryKV:
    """Keys and values of a memory (image states), computed when it is given and kept from then on.

    Shapes: k, v [B G M K]
    """

    spare = math.inf

    def __init__(self) -> None:
        self.k: Tensor | None = None
        self.v: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return 0 if self.k is None or self.v is None else self.k.nbytes + self.v.nbytes

    def memory(self, k: Tensor | None, v: Tensor | None) -> tuple[Tensor, Tensor]:
        """All that is remembered, after adding what is new."""
        if k is not None and v is not None:
            self.k = k if self.k is None else torch.cat([self.k, k], 2)
            self.v = v if self.v is None else torch.cat([self.v, v], 2)
        assert self.k is not None
        assert self.v is not None
        return self.k, self.v

    def snapshot(self, length: int) -> Any:
        return self.k, self.v  # never written in place, so no copy is needed

    def restore(self, saved: Any) -> None:
        self.k, self.v = saved

    def select(self, rows: Tensor) -> None:
        self.k = None if self.k is None else self.k[rows]
        self.v = None if self.v is None else self.v[rows]


def row_indices(rows: Sequence[int] | Tensor, batch: int) -> Tensor:
    """Row numbers as an int64 tensor.

    Raises: LaminaError for one that is not among the `batch` rows
    """
    found = torch.as_tensor(rows)
    if found.ndim != 1 or found.is_floating_point() or any(not 0 <= row < batch for row in found.tolist()):
        raise LaminaError(f"rows {found.tolist()} are not all among the state's 0 to {batch - 1}")
    return found.to(torch.int64)


class Snapshot(NamedTuple):
    """A copy of a state, of the fields that it has; None for layers that lose nothing within `ahead` tokens."""

    lengths: list[int]
    layers: list[Any]
    history: Tensor | None
    memory_mask: Tensor | None
    made: Made | None
    ahead: int | None = None


class State:
    """All that a decoder remembers of B sequences: how long each is, and the states of its mixers.

    Fields: `lengths` tokens held by each row; `capacity` the most a row can hold; `layers` the mixers' states
    by slot; `history` the tokens themselves, kept only where earlier keys can go stale; `made` what it was made for.
    """

    def __init__(
        self, batch: int, capacity: int, layers: Sequence[Any], history: Tensor | None, made: Made | None = None
    ) -> None:
        self.made = made
        self.lengths = [0] * batch
        self.capacity = capacity
        self.layers = list(layers)
        self.history = history
        self.memory_mask: Tensor | None = None

    @property
    def batch(self) -> int:
        return len(self.lengths)

    @property
    def nbytes(self) -> int:
        """Bytes held, as allocated."""
        return sum(layer.nbytes for layer in self.layers) + (0 if self.history is None else self.history.nbytes)

    @property
    def has_memory(self) -> bool:
        return any(isinstance(layer, MemoryKV) and layer.k is not None for layer in self.layers)

    def check_room(self, lengths: Sequence[int]) -> None:
        """Raises: LaminaError if a row would pass the capacity."""
        for row, (held, new) in enumerate(zip(self.lengths, lengths, strict=True)):
            if held + new > self.capacity:
                raise LaminaError(
                    f"row {row} holds {held} tokens and {new} more pass the state's capacity of {self.capacity}; "
                    "make the state with a larger capacity"
                )

    def advance(self, lengths: Sequence[int]) -> None:
        self.lengths = [held + new for held, new in zip(self.lengths, lengths, strict=True)]

    def rewinds(self, tokens: int) -> bool:
        """Whether so many of the last tokens can be taken back."""
        return all(layer.spare >= tokens for layer in self.layers)

    def rewind(self, lengths: Sequence[int]) -> None:
        """Takes back all but the first `lengths` tokens of each row.

        Raises: LaminaError if a row holds fewer, or something of before was lost with the later ones.
        """
        back = [held - kept for held, kept in zip(self.lengths, lengths, strict=True)]
        if min(back, default=0) < 0 or not self.rewinds(max(back, default=0)):
            raise LaminaError(f"rows of {self.lengths} tokens cannot go back to {list(lengths)}; restore a snapshot")
        self.lengths = list(lengths)

    def snapshot(self, ahead: int | None = None) -> Snapshot:
        """A copy of all that is remembered, which later tokens do not touch.

        One to go back by at most `ahead` tokens leaves out what such a step loses nothing of: keys and values, which
        grow with the context, while what recurrences carry does not.
        """
        longest = max(self.lengths, default=0)
        history = None if self.history is None else self.history.clone()
        kept = (ahead is not None and layer.spare >= ahead for layer in self.layers)
        layers = [None if whole else layer.snapshot(longest) for whole, layer in zip(kept, self.layers, strict=True)]
        return Snapshot(list(self.lengths), layers, history, self.memory_mask, self.made, ahead)

    def restore(self, saved: Snapshot) -> None:
        """Back to what `snapshot` saw, of this state or of one made alike; it can be restored again.

        Raises: LaminaError if the snapshot is of another architecture, precision, device, capacity or number of rows.
        """
        given(saved, Snapshot, SNAPSHOT)
        if saved.made is not None and self.made is not None:
            saved.made.check_sizes(self.made, "the snapshot")
        if len(saved.lengths) != self.batch:
            raise LaminaError(
                f"the snapshot holds {len(saved.lengths)} rows and the state {self.batch}; they must agree"
            )
        passed = [now - then for now, then in zip(self.lengths, saved.lengths, strict=True)]
        if saved.ahead is not None and not all(0 <= tokens <= saved.ahead for tokens in passed):
            raise LaminaError(
                f"rows of {self.lengths} tokens cannot go back to {saved.lengths}: "
                f"the snapshot is for steps of at most {saved.ahead} tokens"
            )
        self.lengths, self.memory_mask = list(saved.lengths), saved.memory_mask
        self.history = None if saved.history is None else saved.history.clone()
        for layer, part in zip(self.layers, saved.layers, strict=True):
            if part is not None:
                layer.restore(part)

    def select(self, rows: Sequence[int] | Tensor) -> None:
        """Keep these rows, in this order (a row may come more than once)."""
        rows = row_indices(rows, self.batch)
        self.lengths = [self.lengths[row] for row in rows.tolist()]
        for layer in self.layers:
            layer.select(rows)
        self.history = None if self.history is None else self.history[rows]
        self.memory_mask = None if self.memory_mask is None else self.memory_mask[rows]
