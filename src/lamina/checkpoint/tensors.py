"""A tensor as it lies in a file, and the file as a table of such tensors.

Files are memory-mapped: opening one costs its header, and a tensor's bytes are touched when they are read.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import torch

from lamina.checkpoint.headers.files import HEADER_LIMIT, File
from lamina.checkpoint.headers.table import Header, shown
from lamina.errors import LaminaError
from lamina.ops.blocks import BLOCKS, PIECE
from lamina.ops.packed import Packed

PLAIN: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of an open file, not yet in memory.

    Units: shape is in torch order (the last dimension is contiguous); nbytes counts bytes as stored
    """

    name: str
    shape: tuple[int, ...]
    format: str  # a key of PLAIN or of BLOCKS
    path: Path
    raw: torch.Tensor = field(repr=False, compare=False)  # uint8 [nbytes], a view of the memory map

    transposed: ClassVar[bool] = False
    """Whether the rows that are stored are the columns of `shape`."""

    @property
    def nbytes(self) -> int:
        return self.raw.numel()

    @property
    def dtype(self) -> torch.dtype:
        """What `read` gives: the stored type of a plain format, float32 for a block format."""
        return PLAIN.get(self.format, torch.float32)

    def data(self) -> bytes:
        """The bytes as stored."""
        return bytes(self.raw.numpy())

    def read(self) -> torch.Tensor:
        """The whole tensor: a plain format as a view of the memory map, a block format as new float32 values.

        The map is private: writing into the view changes neither the file nor what other processes read, but
        it does change what later reads through the same open file give. A plain tensor that starts at an
        address its type does not allow is copied, and so is a boolean one (so that each value is 0 or 1).
        """
        return self._elements(0, math.prod(self.shape)).view(self.shape)

    def read_rows(self, start: int, stop: int) -> torch.Tensor:
        """Rows [start, stop) along the first dimension, as `read` would give them.

        Raises: LaminaError if the tensor has no such rows
        """
        if not self.shape or not 0 <= start <= stop <= self.shape[0]:
            raise LaminaError(
                f"{self.path}: tensor {shown(self.name)} of shape {list(self.shape)} has no rows {start} to {stop}"
            )
        row = math.prod(self.shape[1:])
        if self.format in PLAIN or row % BLOCKS[self.format].elements == 0:
            return self._elements(start * row, stop * row).view(stop - start, *self.shape[1:])
        return self.read()[start:stop]  # a vector in blocks: its rows are single values

    def copy_to(self, out: torch.Tensor) -> None:
        """Write the values into `out`, whatever its strides, type and device.

        Shapes: out has the shape of this tensor
        Units: takes less than a MB besides `out`, a few MB where `out` is not on the CPU
        Raises: LaminaError if its shape disagrees, or its type cannot hold such values (floats in an integer)
        """
        if tuple(out.shape) != self.shape:
            raise LaminaError(
                f"{self.path}: tensor {shown(self.name)} has shape {list(self.shape)}"
                f" and does not fit one of shape {list(out.shape)}"
            )
        if not torch.can_cast(self.dtype, out.dtype):
            raise LaminaError(
                f"{self.path}: tensor {shown(self.name)} holds {_word(self.dtype)} values"
                f" and cannot be stored as {_word(out.dtype)}"
            )
        with torch.no_grad():
            if self._is_view and out.is_cpu:
                out.copy_(self.read())  # torch converts while it copies
            else:
                self._fill(out, 0, PIECE if out.is_cpu else 64 * PIECE)

    def packed(self, dtype: torch.dtype) -> Packed | None:
        """A matrix or a stack of them as stored, a view of the memory map; None if it is stored in a plain format.

        Units: `dtype` is what its values are to be given in
        """
        if self.format in PLAIN or len(self.shape) not in (2, 3):
            return None
        return Packed(BLOCKS[self.format], self.shape, [self.raw.view(*self.shape[:-1], -1)], dtype)

    @property
    def _is_view(self) -> bool:
        """Whether `read` needs no memory."""
        aligned = self.raw.storage_offset() % self.dtype.itemsize == 0
        return self.format in PLAIN and self.dtype != torch.bool and aligned

    def _fill(self, out: torch.Tensor, start: int, piece: int) -> None:
        """Write the elements from `start` on into `out`, at most `piece` at a time."""
        if out.is_contiguous():
            out = out.view(-1)
            if self.format in BLOCKS and out.dtype == torch.float32 and out.is_cpu:
                self._unpack(start, start + out.numel(), out)
                return
        if out.numel() > piece:
            row = out[0].numel()
            rows = max(1, piece // row)
            for i in range(0, len(out), rows):
                self._fill(out[i] if row > piece else out[i : i + rows], start + i * row, piece)
        else:
            out.copy_(self._elements(start, start + out.numel()).view(out.shape))

    def _elements(self, start: int, stop: int) -> torch.Tensor:
        """Elements [start, stop) of the flattened tensor; in a block format both stand at block edges."""
        if self.format not in PLAIN:
            out = torch.empty(stop - start)
            self._unpack(start, stop, out)
            return out
        size = self.dtype.itemsize
        raw = self.raw[start * size : stop * size]
        if self.dtype == torch.bool:
            return raw != 0
        return (raw.clone() if raw.storage_offset() % size else raw).view(self.dtype)

    def _unpack(self, start: int, stop: int, out: torch.Tensor) -> None:
        block = BLOCKS[self.format]
        raw = self.raw[start // block.elements * block.nbytes : stop // block.elements * block.nbytes]
        if stop > start:
            Packed(block, (len(raw) // block.nbytes, block.elements), [raw.view(-1, block.nbytes)]).rows(
                0, len(raw) // block.nbytes, out.view(-1, block.elements)
            )


@dataclass(frozen=True)
class TensorFile:
    """An open checkpoint: tensors by name and what it says of itself; `path` is a directory if sharded."""

    path: Path
    tensors: dict[str, StoredTensor]
    metadata: dict[str, Any]

    @property
    def stem(self) -> str:
        return self.path.stem


@dataclass(frozen=True)
class _MappedFile:
    """A file as its memory map, for what reads headers: what is checked is then what is mapped."""

    path: Path
    map: torch.Tensor  # uint8
    limit: int = HEADER_LIMIT

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def stem(self) -> str:
        return self.path.stem

    @property
    def size(self) -> int:
        return len(self.map)

    def read(self, start: int, stop: int) -> bytes:
        return bytes(self.map[start:stop].numpy())


def opened(path: Path, read_header: Callable[[File], Header]) -> TensorFile:
    """One file as its header describes it, each tensor a view of the memory map.

    Raises: LaminaError as `map_file` and `read_header` do
    """
    data = map_file(path)
    header = read_header(_MappedFile(path, data))
    tensors = {
        name: StoredTensor(name, entry.shape, entry.format, path, data[entry.start : entry.stop])
        for name, entry in header.tensors.items()
    }
    return TensorFile(path, tensors, header.metadata)


def map_file(path: Path) -> torch.Tensor:
    """The bytes of a file as a private (copy-on-write) memory map.

    Shapes: uint8 [bytes in the file]
    Raises: LaminaError if there is no such file, or it cannot be read or mapped
    Differs: a file that is shortened while it is mapped ends this process (SIGBUS), as with any map
    """
    try:
        if not path.is_file():
            raise LaminaError(f"{path}: no such file")
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                return torch.empty(0, dtype=torch.uint8)
            return torch.frombuffer(_private_map(file.fileno()), dtype=torch.uint8)
    except OSError as error:
        raise LaminaError(f"{path}: cannot be read: {error.strerror or error}") from error


def _private_map(file: int) -> mmap.mmap:
    """A map whose changes stay in this process, and that sets no memory aside (a file may be larger than memory)."""
    if (no_reserve := getattr(mmap, "MAP_NORESERVE", None)) is not None:  # Linux
        flags = mmap.MAP_PRIVATE | no_reserve
        return mmap.mmap(file, 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    return mmap.mmap(file, 0, access=mmap.ACCESS_COPY)


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
