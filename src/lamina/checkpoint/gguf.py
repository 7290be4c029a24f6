"""The GGUF format: metadata and tensors in one file, as llama.cpp and its relatives store models.

A file is a magic, counts, key/value pairs, a list of tensors, and their data, each at a multiple of the
alignment. Everything the file claims is compared with its length before memory is taken.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little endian)
"""

from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lamina.checkpoint.blocks import BLOCKS
from lamina.checkpoint.tensors import (
    HEADER_LIMIT,
    PLAIN,
    StoredTensor,
    TensorFile,
    count_elements,
    map_file,
    shown,
)
from lamina.errors import LaminaError

_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS = {
    0: "u1",
    1: "i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_SMALLEST = {_STRING: 8, _ARRAY: 12}  # bytes an element takes at least, beside the numbers
_MAX_NESTING = 4
_MAX_ALIGNMENT = 1 << 20

FORMATS: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 30: "BF16",
}  # fmt: skip
_UNREAD = {
    9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4",
}  # fmt: skip


def open_gguf(path: str | Path) -> TensorFile:
    """Open one file. Metadata become Python values, arrays lists; tensor shapes are in torch order.

    Raises: LaminaError if it is not a whole and consistent GGUF file of version 2 or 3, or one of many parts
    """
    path = Path(path)
    data = map_file(path)
    cursor = _Cursor(path, data)
    tensor_count, pair_count = _read_counts(cursor)
    metadata: dict[str, Any] = {}
    for _ in range(pair_count):
        key = cursor.string("a metadata key")
        if key in metadata:
            raise LaminaError(f"{path}: metadata key {shown(key)} stands twice")
        metadata[key] = cursor.value(cursor.number("<I", f"the type of {shown(key)}"), f"metadata {shown(key)}")
    if metadata.get("split.count", 1) not in (0, 1):
        raise LaminaError(
            f"{path}: is one of {metadata['split.count']!r} parts; a single whole file is accepted"
            " (llama-gguf-split --merge makes one)"
        )
    alignment = _alignment(path, metadata)
    listed = [_read_tensor_info(cursor) for _ in range(tensor_count)]
    start = -(-cursor.position // alignment) * alignment
    tensors: dict[str, StoredTensor] = {}
    spans: list[tuple[int, int, str]] = []
    for name, shape, kind, offset in listed:
        if name in tensors:
            raise LaminaError(f"{path}: tensor {shown(name)} stands twice")
        where = f"{path}: tensor {shown(name)}"
        first, last = start + offset, start + offset + _stored_bytes(where, shape, kind)
        if offset % alignment or last > len(data):
            raise LaminaError(
                f"{where} claims bytes {first} to {last}; accepted are whole ones of the file's {len(data)}"
                f" that begin at a multiple of {alignment} (is the file complete?)"
            )
        tensors[name] = StoredTensor(name, shape, FORMATS[kind], path, data[first:last])
        spans.append((first, last, name))
    _check_overlap(path, spans)
    return TensorFile(path, tensors, metadata)


class _Cursor:
    """Reads forward through the header, never past its end."""

    def __init__(self, path: Path, data: torch.Tensor) -> None:
        self.path = path
        self.position = 0
        self.limited = len(data) > HEADER_LIMIT
        self.bytes = data[:HEADER_LIMIT].numpy().data

    def take(self, size: int, what: str) -> int:
        """Step over `size` bytes; returns where they begin."""
        left = len(self.bytes) - self.position
        if size > left:
            bound = f"the {HEADER_LIMIT} bytes a header may have" if self.limited else "the file"
            raise LaminaError(f"{self.path}: {what} claims {size} bytes, and {left} are left of {bound}")
        self.position += size
        return self.position - size

    def number(self, code: str, what: str) -> int:
        return struct.unpack_from(code, self.bytes, self.take(struct.calcsize(code), what))[0]

    def string(self, what: str) -> str:
        size = self.number("<Q", what)
        start = self.take(size, what)
        return self._decode(start, start + size, what)

    def value(self, kind: int, what: str, depth: int = 0) -> Any:
        """One metadata value of the type numbered `kind`."""
        if kind == _STRING:
            return self.string(what)
        if kind != _ARRAY:
            return self._numbers(kind, 1, what)[0]
        if depth == _MAX_NESTING:
            raise LaminaError(f"{self.path}: {what} nests arrays; at most {_MAX_NESTING} deep is accepted")
        item, count = self.number("<I", what), self.number("<Q", what)
        smallest = _SMALLEST.get(item, 1)
        if count * smallest > len(self.bytes) - self.position:
            self.take(count * smallest, what)
        if item == _STRING:
            return self._strings(count, what)
        if item == _ARRAY:
            return [self.value(_ARRAY, what, depth + 1) for _ in range(count)]
        return self._numbers(item, count, what)

    def _numbers(self, kind: int, count: int, what: str) -> list[Any]:
        if kind not in _NUMBERS and kind != _BOOL:
            raise LaminaError(f"{self.path}: {what} has value type {kind}; types 0 to 12 are accepted")
        dtype = np.dtype(_NUMBERS.get(kind, "u1"))
        values = np.frombuffer(self.bytes, dtype, count, self.take(count * dtype.itemsize, what))
        if kind == _BOOL and (values > 1).any():
            raise LaminaError(f"{self.path}: {what} holds a boolean that is neither 0 nor 1")
        return values.astype(bool).tolist() if kind == _BOOL else values.tolist()

    def _strings(self, count: int, what: str) -> list[str]:
        """Many strings at once: a vocabulary has 10^5 of them, so the loop does as little as it can."""
        length_at = struct.Struct("<Q").unpack_from
        buffer, end, position = self.bytes, len(self.bytes), self.position
        spans = []
        for _ in range(count):
            start = position + 8
            if start > end:
                break
            position = start + length_at(buffer, start - 8)[0]
            if position > end:
                break
            spans.append((start, position))
        if len(spans) < count:
            raise LaminaError(f"{self.path}: {what} claims {count} strings, and the file ends in number {len(spans)}")
        self.position = position
        try:
            return [str(buffer[start:stop], "utf-8") for start, stop in spans]
        except UnicodeDecodeError:
            return [self._decode(start, stop, what) for start, stop in spans]

    def _decode(self, start: int, stop: int, what: str) -> str:
        try:
            return str(self.bytes[start:stop], "utf-8")
        except UnicodeDecodeError as error:
            raise LaminaError(f"{self.path}: {what} holds a string at byte {start} that is not UTF-8") from error


def _read_counts(cursor: _Cursor) -> tuple[int, int]:
    """How many tensors and key/value pairs the file claims, once its magic, version and length allow them."""
    path = cursor.path
    if bytes(cursor.bytes[:4]) != b"GGUF":
        raise LaminaError(f"{path}: does not begin with 'GGUF', as a GGUF file does")
    cursor.take(4, "the magic")
    version = cursor.number("<I", "the version")
    if version & 0xFFFF == 0:
        raise LaminaError(f"{path}: is a big-endian GGUF file; little-endian ones are accepted")
    if version not in (2, 3):
        raise LaminaError(f"{path}: is a GGUF file of version {version}; versions 2 and 3 are accepted")
    counts = cursor.number("<Q", "the tensor count"), cursor.number("<Q", "the metadata count")
    left = len(cursor.bytes) - cursor.position
    if counts[0] * 24 + counts[1] * 13 > left:  # what one tensor and one pair take at least
        raise LaminaError(
            f"{path}: claims {counts[0]} tensors and {counts[1]} metadata keys;"
            f" the {left} bytes left cannot describe so many"
        )
    return counts


def _alignment(path: Path, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise LaminaError(
            f"{path}: general.alignment is {shown(str(alignment))}; a power of two up to {_MAX_ALIGNMENT} is accepted"
        )
    return alignment


def _read_tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape in torch order, type number and offset of the next tensor."""
    name = cursor.string("a tensor name")
    what = f"tensor {shown(name)}"
    dimensions = cursor.number("<I", what)
    if dimensions > 4:
        raise LaminaError(f"{cursor.path}: {what} claims {dimensions} dimensions; at most 4 are accepted")
    shape = tuple(cursor.number("<Q", what) for _ in range(dimensions))[::-1]
    return name, shape, cursor.number("<I", what), cursor.number("<Q", what)


def _stored_bytes(where: str, shape: tuple[int, ...], kind: int) -> int:
    """Bytes that a tensor of that shape and type takes."""
    if kind not in FORMATS:
        name = f"{_UNREAD[kind]} (type {kind})" if kind in _UNREAD else f"type {kind}"
        raise LaminaError(f"{where} is stored as {name}; known: {', '.join(FORMATS.values())}")
    elements = count_elements(where, shape)
    if FORMATS[kind] in PLAIN:
        return elements * PLAIN[FORMATS[kind]].itemsize
    block = BLOCKS[FORMATS[kind]]
    if not shape or shape[-1] % block.elements:
        raise LaminaError(
            f"{where} of shape {list(shape)} is stored as {FORMATS[kind]};"
            f" its last dimension must be a multiple of {block.elements}"
        )
    return elements // block.elements * block.nbytes


def _check_overlap(path: Path, spans: list[tuple[int, int, str]]) -> None:
    spans.sort()
    for (_, end, before), (start, _, name) in pairwise(spans):
        if start < end:
            raise LaminaError(f"{path}: the data of tensor {shown(name)} overlaps that of {shown(before)}")
