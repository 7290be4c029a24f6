"""Attention to the last tokens one by one, and to entries that each stand for a run of earlier ones."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lamina.arch.mixers.compressed_attention import CompressedAttention as CompressedAttentionValue
from lamina.arch.mixers.compressed_attention import Compressor as CompressorValue
from lamina.arch.mixers.compressed_attention import EntryIndexer as EntryIndexerValue
from lamina.arch.norm import Norm
from lamina.arch.position import Rotary
from lamina.nn.basic import Linear, norm
from lamina.nn.registry import Place, reads, runs
from lamina.nn.state import Keeping, Stateful, WindowCache
from lamina.nn.step import Step
from lamina.ops.choosing import choose_runs
from lamina.ops.entries import attend_entries
from lamina.ops.linear import linear
from lamina.ops.packed import Packed
from lamina.ops.pooling import empty, runs_pooled
from lamina.ops.rotary import rotate, tables

FIELDS = "heads head_dim query_latent window output_groups output_rank rotary norm compressor indexer"

reads(CompressorValue, "stride overlap")
reads(EntryIndexerValue, "heads head_dim top_k")


class Entries:
    """Entries of whole runs, and those still open, as far as tokens made them.

    Shapes: kept [B E K]; open [3 B s K], float32
    """

    def __init__(self, batch: int, entries: int, series: int, dim: int, **like: Any) -> None:
        self.kept = torch.zeros(batch, entries, dim, **like)
        self.open = empty(batch, series, dim, device=like.get("device"))

    @property
    def nbytes(self) -> int:
        return self.kept.nbytes + self.open.nbytes

    def snapshot(self) -> Any:
        return self.kept.clone(), self.open  # what is open is replaced at a step, never written

    def restore(self, saved: Any) -> None:
        kept, self.open = saved
        self.kept[:] = kept

    def select(self, rows: Tensor) -> None:
        self.kept, self.open = self.kept[rows], self.open[:, rows]


class CompressedState(Keeping):
    """A ring of the last tokens' keys, and entries: those that are read, and those that an indexer compares."""

    def __init__(self, window: WindowCache, *entries: Entries) -> None:
        self.window, self.entries = window, entries

    @property
    def nbytes(self) -> int:
        return self.window.nbytes + sum(part.nbytes for part in self.entries)

    def snapshot(self, length: int) -> Any:
        return self.window.snapshot(length), [part.snapshot() for part in self.entries]

    def restore(self, saved: Any) -> None:
        window, entries = saved
        self.window.restore(window)
        for part, before in zip(self.entries, entries, strict=True):
            part.restore(before)

    def select(self, rows: Tensor) -> None:
        self.window.select(rows)
        for part in self.entries:
            part.select(rows)


def rotate_last(x: Float[Tensor, "B H T K"], rotary: Rotary, cos: Tensor, sin: Tensor) -> Float[Tensor, "B H T K"]:
    """Turns the last `rotary.dim` dimensions of each head."""
    if rotary.dim == x.shape[-1]:
        return rotate(x, rotary, cos, sin)
    first, last = x[..., : -rotary.dim], x[..., -rotary.dim :]
    return torch.cat([first, rotate(last, rotary, cos, sin)], -1)


class GroupedLinear(nn.Module):
    """Each group of the input's numbers has a projection of its own.

    Shapes: x [B T O I] -> [B T O r]; weight [(O r) I]
    """

    packable = ("weight",)
    weight: nn.Parameter | Packed

    def __init__(self, groups: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.groups, self.outputs = groups, outputs
        self.weight = nn.Parameter(torch.empty(groups * outputs, inputs))

    def forward(self, x: Float[Tensor, "B T O I"]) -> Float[Tensor, "B T O r"]:
        weight, size = self.weight, self.outputs
        if isinstance(weight, Packed):
            starts = range(0, self.groups * size, size)
            return torch.stack([linear(x[:, :, i // size], weight.cut(i, i + size)) for i in starts], 2)
        return torch.einsum("btgi,gri->btgr", x, weight.unflatten(0, (self.groups, size)))


class Compressor(nn.Module):
    """One normalised and rotated entry for every run of tokens.

    Shapes: x [B T D] -> all entries that any row has, [B E K]
    """

    def __init__(self, value: CompressorValue, size: int, entry_norm: Norm, rotary: Rotary, width: int) -> None:
        super().__init__()
        self.value, self.rotary, rows = value, rotary, value.series * size
        self.kv_proj, self.weight_proj = Linear(width, rows), Linear(width, rows)
        self.position_bias = nn.Parameter(torch.empty(value.stride, rows))
        self.kv_norm = norm(entry_norm, size)

    def forward(self, x: Float[Tensor, "B T D"], step: Step, state: Entries) -> Float[Tensor, "B E K"]:
        stride, device = self.value.stride, x.device
        first = [start // stride for start in step.starts]
        ends = [(start + n) // stride for start, n in zip(step.starts, step.lengths, strict=True)]
        rows, columns, positions = step.real
        values, logits = self.kv_proj(x), self.weight_proj(x) + self.position_bias[step.positions % stride]
        count = -(-max(start % stride + step.tokens for start in step.starts) // stride)
        places = positions - torch.tensor(first, device=device)[rows] * stride
        held = values.new_zeros(len(x), count * stride, values.shape[2])
        weighed = logits.new_full(held.shape, float("-inf"))
        held[rows, places], weighed[rows, places] = values[rows, columns], logits[rows, columns]
        runs = held.unflatten(1, (count, stride)), weighed.unflatten(1, (count, stride))
        made = runs_pooled(*runs, state.open)
        closed = torch.tensor(ends, device=device) - torch.tensor(first, device=device)
        open_now = closed[:, None] + torch.arange(self.value.series, device=device)
        state.open = made[:, torch.arange(len(x), device=device)[:, None], open_now]
        if most := max(end - begin for end, begin in zip(ends, first, strict=True)):
            self._close(made[:, :, :most], closed, first, state)
        return state.kept[:, : max(ends)]

    def _close(self, made: Float[Tensor, "3 B n K"], closed: Tensor, first: list[int], state: Entries) -> None:
        """Keeps the entries of runs that are whole now, of each row the first `closed`."""
        assert self.kv_norm is not None
        rows, columns = (torch.arange(made.shape[2], device=made.device) < closed[:, None]).nonzero(as_tuple=True)
        _, weights, sums = made[:, rows, columns]
        entries = self.kv_norm((sums / weights).to(state.kept.dtype))
        numbers = torch.tensor(first, device=made.device)[rows] + columns
        turn = tables(self.rotary, numbers * self.value.stride, 0, entries.dtype)
        state.kept[rows, numbers] = rotate_last(entries[None, None], self.rotary, *turn)[0, 0]


class EntryIndexer(nn.Module):
    """The entries that each query attends to; None where it may attend to all that there are.

    Shapes: x [B T D], the query latent [B T Q] -> [B T k]
    """

    def __init__(self, value: EntryIndexerValue, mixer: CompressedAttentionValue, width: int) -> None:
        super().__init__()
        assert mixer.compressor is not None
        self.value, self.rotary = value, mixer.rotary
        self.q_proj = Linear(mixer.query_latent, value.heads * value.head_dim)
        self.head_weights = Linear(width, value.heads)
        self.compressor = Compressor(mixer.compressor, value.head_dim, mixer.norm, mixer.rotary, width)

    @torch.no_grad()
    def forward(
        self, x: Float[Tensor, "B T D"], latent: Float[Tensor, "B T Q"], step: Step, state: Entries
    ) -> Int[Tensor, "B T k"] | None:
        keys = self.compressor(x, step, state)
        if keys.shape[1] <= self.value.top_k:
            return None
        q = self.q_proj(latent).unflatten(-1, (self.value.heads, -1)).transpose(1, 2)
        q = rotate_last(q, self.rotary, *step.rotary(self.rotary)).transpose(1, 2)
        top_k, stride = self.value.top_k, self.compressor.value.stride
        return choose_runs(q, keys, self.head_weights(x), step.positions, top_k, stride)[:, 0]


@runs(CompressedAttentionValue, FIELDS)
class CompressedAttention(Stateful):
    """Compressed attention as its value says.

    Shapes: x [B T D] -> [B T D]
    """

    def __init__(self, value: CompressedAttentionValue, width: int, place: Place) -> None:
        super().__init__()
        self.value, self.slot = value, place.slot()
        out = value.heads * value.head_dim
        self.q_a_proj, self.q_a_norm = Linear(width, value.query_latent), norm(value.norm, value.query_latent)
        self.q_b_proj = Linear(value.query_latent, out)
        self.q_b_norm = norm(value.norm.replace(weight=False), value.head_dim)
        self.kv_proj, self.kv_norm = Linear(width, value.head_dim), norm(value.norm, value.head_dim)
        self.o_a_proj = GroupedLinear(value.output_groups, out // value.output_groups, value.output_rank)
        self.o_b_proj = Linear(value.output_groups * value.output_rank, width)
        self.sinks = nn.Parameter(torch.empty(value.heads))
        self.compressor = self.indexer = None
        if value.compressor:
            self.compressor = Compressor(value.compressor, value.head_dim, value.norm, value.rotary, width)
            self.indexer = EntryIndexer(value.indexer, value, width) if value.indexer else None

    def state(self, batch: int, capacity: int, **like: Any) -> CompressedState:
        value, sizes = self.value, []
        if value.compressor:
            sizes = [value.head_dim, *([value.indexer.head_dim] if value.indexer else [])]
            entries, series = capacity // value.compressor.stride, value.compressor.series
            return CompressedState(
                self._ring(batch, capacity, **like), *(Entries(batch, entries, series, dim, **like) for dim in sizes)
            )
        return CompressedState(self._ring(batch, capacity, **like))

    def _ring(self, batch: int, capacity: int, **like: Any) -> WindowCache:
        return WindowCache(batch, min(self.value.window, capacity), (1, self.value.head_dim), **like)

    def forward(self, x: Float[Tensor, "B T D"], step: Step) -> Float[Tensor, "B T D"]:
        assert self.q_a_norm is not None
        assert self.q_b_norm is not None
        assert self.kv_norm is not None
        value, state = self.value, step.layers(self.slot).held(self, step)
        cos, sin = step.rotary(value.rotary)
        latent = self.q_a_norm(self.q_a_proj(x))
        q = self.q_b_norm(self.q_b_proj(latent).unflatten(-1, (value.heads, -1))).transpose(1, 2)
        q = rotate_last(q, value.rotary, cos, sin)
        keys = rotate_last(self.kv_norm(self.kv_proj(x))[:, None], value.rotary, cos, sin)
        (keys,), reach = state.window.extend((keys,), step, value.window)
        entries, chosen, seen = keys[:, 0, :0], None, step.positions.new_zeros(1, step.tokens)
        if self.compressor is not None:
            seen = (step.positions + 1) // self.compressor.value.stride
            entries = self.compressor(x, step, state.entries[0])
            if self.indexer is not None:
                chosen = self.indexer(x, latent, step, state.entries[1])
        out = attend_entries(q, keys[:, 0], reach, entries, seen, chosen, self.sinks, value.head_dim**-0.5)
        out = rotate_last(out, value.rotary, cos, -sin).transpose(1, 2).flatten(2)
        return self.o_b_proj(self.o_a_proj(out.unflatten(-1, (value.output_groups, -1))).flatten(2))
