"""A weight that stays in the bytes it was stored in, and is unpacked a few rows at a time where it is used."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lamina.ops.blocks import BlockFormat
from lamina.ops.grid import SCALES, Grid
from lamina.ops.native import CODES, Weight, reachable, usable

Format = BlockFormat | Grid
Parts = Sequence[Tensor | None]
PIECE = 1 << 18
"""How many values are unpacked at a time on a CPU; elsewhere 64 times as many."""


class Packed(nn.Module):
    """A matrix, or a stack of them, as stored; `dtype` is what its values are given in, and follows `.to(dtype)`.

    All of it is bytes, which another type leaves as they are. It learns nothing.
    Shapes: [O I] or [E O I]; codes uint8 [... O bytes], scales uint8 [... rows of tiles, bytes],
        zeros uint8 [... O groups], factor uint8 [... 4] (one float32)
    Fields: `first` is how many rows of the first row of tiles stand before row 0, after a cut that is no tile's edge
    """

    codes: Tensor

    def __init__(
        self, format: Format, shape: Sequence[int], parts: Parts, dtype: torch.dtype = torch.float32, first: int = 0
    ) -> None:
        super().__init__()
        self.format, self.shape, self.first = format, torch.Size(shape), first
        for name, part in zip(("codes", "scales", "zeros", "factor"), (*parts, None, None, None), strict=False):
            self.register_buffer(name, part)
        self.register_buffer("_like", torch.empty(0, dtype=dtype, device=self.codes.device), persistent=False)

    @property
    def parts(self) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
        held = self._buffers
        return self.codes, held["scales"], held["zeros"], held["factor"]

    @property
    def dtype(self) -> torch.dtype:
        return self.get_buffer("_like").dtype

    @property
    def device(self) -> torch.device:
        return self.codes.device

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes as stored, scales included."""
        return sum(part.nbytes for part in self.parts if part is not None)

    def numel(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def extra_repr(self) -> str:
        return f"{list(self.shape)}, {self.format.name}"

    # -- parts of it, in the same memory

    def __getitem__(self, e: int) -> Packed:
        """One matrix of a stack. Shapes: [E O I] -> [O I]"""
        assert self.ndim == 3
        parts = [None if part is None else part[e] for part in self.parts]
        return Packed(self.format, self.shape[1:], parts, self.dtype, self.first)

    def cut(self, start: int, stop: int, step: int = 1) -> Packed:
        """Rows of a matrix, or of each matrix of a stack; a step of more than one needs tiles of one row."""
        (codes, scales, zeros, factor), first = self.parts, 0
        if isinstance(self.format, Grid) and scales is not None:
            rows = self.format.rows
            assert step == 1 or rows == 1
            first, top = (start + self.first) % rows, (start + self.first) // rows
            scales = scales[..., top : -(-(stop + self.first) // rows) : step, :]
            zeros = None if zeros is None else zeros[..., start:stop:step, :]
        codes = codes[..., start:stop:step, :]
        shape = (*self.shape[:-2], codes.shape[-2], self.shape[-1])
        return Packed(self.format, shape, (codes, scales, zeros, factor), self.dtype, first)

    def copy(self, device: torch.device | str) -> Packed:
        """The same in memory of its own."""
        parts = [
            None if part is None else part.to(device, copy=True, memory_format=torch.contiguous_format)
            for part in self.parts
        ]
        return Packed(self.format, self.shape, parts, self.dtype, self.first)

    # -- its values

    def rows(self, start: int, stop: int, out: Tensor | None = None) -> Float[Tensor, "n I"]:
        """Rows [start, stop) of a matrix as float32, into `out` if it is given."""
        if (native := self._native()) and (out is None or reachable(out)):
            out = torch.empty(stop - start, self.shape[-1]) if out is None else out
            place, threads = out.data_ptr(), torch.get_num_threads()
            native.packed_rows(ctypes.byref(self.struct()), None, start, stop - start, place, threads)
            return out
        found = self._values(slice(start, stop), torch.arange(start, stop, device=self.device))
        return found if out is None else out.copy_(found)

    def take(self, ids: Int[Tensor, "..."]) -> Float[Tensor, "... I"]:
        """The rows that `ids` name, as `dtype`.

        Raises: IndexError for one that is not there
        """
        flat = ids.reshape(-1).long()
        if flat.numel() and not flat.is_meta:
            low, high = (int(bound) for bound in flat.aminmax())
            if low < 0 or high >= len(self):
                raise IndexError(f"rows {low} to {high} of {len(self)}")
        if (native := self._native()) and reachable(flat):
            out = torch.empty(len(flat), self.shape[-1])
            place, threads = out.data_ptr(), torch.get_num_threads()
            native.packed_rows(ctypes.byref(self.struct()), flat.data_ptr(), 0, len(flat), place, threads)
        else:
            out = self._values(flat, flat)
        return out.to(self.dtype).view(*ids.shape, self.shape[-1])

    def dense(self) -> Tensor:
        """All of its values as `dtype`, unpacked piece by piece. Shapes: as its own"""
        out = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        matrices = [self] if self.ndim == 2 else [self[e] for e in range(len(self))]
        for matrix, values in zip(matrices, out.view(-1, *self.shape[-2:]), strict=True):
            for start, stop, piece in matrix.pieces(self.dtype):
                values[start:stop] = piece
        return out

    def pieces(self, dtype: torch.dtype) -> Iterator[tuple[int, int, Tensor]]:
        """(start, stop, rows start to stop) until a matrix has been gone through.

        The memory of one piece is used again for the next.
        """
        count, width = self.shape
        rows = max(1, (PIECE if self.codes.is_cpu else 64 * PIECE) // max(1, width))
        buffer = torch.empty(min(rows, count), width, device=self.device)
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            yield start, stop, self.rows(start, stop, buffer[: stop - start]).to(dtype)

    def few_tokens(self, x: Float[Tensor, "... I"]) -> Tensor | None:
        """x W^T for a few tokens in C; None if that cannot be. Shapes: x [... I] -> [... O]"""
        if self.shape[-1] != x.shape[-1] or not (native := self._native()) or not usable(x):
            return None
        y, tokens = x.new_empty(*x.shape[:-1], self.shape[0]), x.numel() // x.shape[-1]
        places = ctypes.byref(self.struct()), x.data_ptr(), y.data_ptr()
        native.packed_few_tokens(*places, self.shape[0], tokens, torch.get_num_threads())
        return y

    def _values(self, rows: slice | Tensor, numbers: Tensor) -> Tensor:
        """The readable twin of packed.c."""
        codes, scales, zeros, factor = self.parts
        if isinstance(self.format, BlockFormat):
            raw = codes[rows].reshape(-1)
            out = torch.empty(raw.numel() // self.format.nbytes * self.format.elements, device=raw.device)
            self.format.dequantise(raw, out)
            return out.view(-1, self.shape[-1])
        assert scales is not None
        scales = scales[(numbers + self.first) // self.format.rows]
        zeros = None if zeros is None else zeros[rows]
        return self.format.values(codes[rows], scales, zeros, factor, self.shape[-1])

    def _native(self) -> ctypes.CDLL | None:
        return reachable(*(part for part in self.parts if part is not None))

    def struct(self) -> Weight:
        """What packed.c reads."""
        places = [None if part is None else part.data_ptr() for part in self.parts]
        sizes, format = (self.shape[-1], self.codes.shape[-1], self.first), self.format
        code = CODES.index(format.name if isinstance(format, BlockFormat) else format.code)
        if isinstance(format, BlockFormat):
            return Weight(*places, *sizes, 1, 1, 1, code)
        width = self.get_buffer("scales").shape[-1] // SCALES[format.scale].itemsize
        kind = list(SCALES).index(format.scale)
        return Weight(*places, *sizes, format.rows, format.columns, width, code, kind, format.divided)


def stacked(matrices: Sequence[Packed]) -> Packed:
    """Matrices of one format and shape as a stack, in memory of its own. Shapes: E times [O I] -> [E O I]"""
    one = matrices[0]
    assert all(m.format == one.format and m.shape == one.shape and m.first == one.first for m in matrices)
    columns = zip(*(matrix.parts for matrix in matrices), strict=True)
    parts = [None if column[0] is None else torch.stack(column) for column in columns]
    return Packed(one.format, (len(matrices), *one.shape), parts, one.dtype, one.first)
