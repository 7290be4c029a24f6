"""The header of a GGUF file: key/value pairs and the list of tensors, each at a multiple of the alignment.

Everything the file claims is compared with its length before memory is taken.
Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little endian)
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from itertools import pairwise
from typing import Any

from lamina.checkpoint.headers.files import File, Prefix
from lamina.checkpoint.headers.table import Entry, Header, count_bytes, shown
from lamina.errors import LaminaError

_BOOL, _STRING, _ARRAY = 7, 8, 9
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d"}
_SMALLEST = {_STRING: 8, _ARRAY: 12}  # bytes an element takes at least, beside the numbers
_MAX_NESTING = 4
_MAX_ALIGNMENT = 1 << 20

TYPES: dict[int, str] = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0",
}  # fmt: skip


def read_header(file: File, formats: Collection[str] = frozenset(TYPES.values())) -> Header:
    """Metadata become Python values, arrays lists; tensor shapes are in torch order.

    Raises: LaminaError if it is not a whole and consistent GGUF file of version 2 or 3, is one of many parts, or
        holds a tensor in none of `formats`
    """
    cursor = _Cursor(file)
    name = file.name
    tensor_count, pair_count = _read_counts(cursor)
    metadata: dict[str, Any] = {}
    for _ in range(pair_count):
        key = cursor.string("a metadata key")
        if key in metadata:
            raise LaminaError(f"{name}: metadata key {shown(key)} stands twice")
        metadata[key] = cursor.value(cursor.number("<I", f"the type of {shown(key)}"), f"metadata {shown(key)}")
    if metadata.get("split.count", 1) not in (0, 1):
        raise LaminaError(
            f"{name}: is one of {metadata['split.count']!r} parts; a single whole file is accepted"
            " (llama-gguf-split --merge makes one)"
        )
    alignment = _alignment(name, metadata)
    listed = [_read_tensor_info(cursor) for _ in range(tensor_count)]
    start = -(-cursor.position // alignment) * alignment
    size = cursor.prefix.size
    tensors: dict[str, Entry] = {}
    for tensor, shape, kind, offset in listed:
        if tensor in tensors:
            raise LaminaError(f"{name}: tensor {shown(tensor)} stands twice")
        where = f"{name}: tensor {shown(tensor)}"
        format = _format(where, kind, formats)
        first, last = start + offset, start + offset + count_bytes(where, shape, format)
        if offset % alignment or last > size:
            raise LaminaError(
                f"{where} claims bytes {first} to {last}; accepted are whole ones of the file's {size}"
                f" that begin at a multiple of {alignment} (is the file complete?)"
            )
        tensors[tensor] = Entry(tensor, shape, format, first, last, file)
    _check_overlap(name, tensors)
    return Header(file, tensors, metadata)


class _Cursor:
    """Reads forward through the header, never past its end."""

    def __init__(self, file: File) -> None:
        self.name = file.name
        self.prefix = Prefix(file)
        self.position = 0

    @property
    def left(self) -> int:
        """Bytes that may still follow."""
        return self.prefix.end - self.position

    def take(self, size: int, what: str) -> int:
        """Step over `size` bytes, which can then be read; returns where they begin."""
        if not self.prefix.reach(self.position + size):
            raise LaminaError(f"{self.name}: {what} claims {size} bytes, and {self.left} are left of {self._bound}")
        self.position += size
        return self.position - size

    @property
    def _bound(self) -> str:
        limited = self.prefix.end < self.prefix.size
        return f"the {self.prefix.end} bytes a header may have" if limited else "the file"

    def number(self, code: str, what: str) -> int:
        start = self.take(struct.calcsize(code), what)
        return struct.unpack_from(code, self.prefix.bytes, start)[0]

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
            raise LaminaError(f"{self.name}: {what} nests arrays; at most {_MAX_NESTING} deep is accepted")
        item, count = self.number("<I", what), self.number("<Q", what)
        smallest = _SMALLEST.get(item, 1)
        if count * smallest > self.left:
            self.take(count * smallest, what)
        if item == _STRING:
            return self._strings(count, what)
        if item == _ARRAY:
            return [self.value(_ARRAY, what, depth + 1) for _ in range(count)]
        return self._numbers(item, count, what)

    def _numbers(self, kind: int, count: int, what: str) -> list[Any]:
        if kind not in _NUMBERS:
            raise LaminaError(f"{self.name}: {what} has value type {kind}; types 0 to 12 are accepted")
        code = _NUMBERS[kind]
        size = count * struct.calcsize(f"<{code}")
        start = self.take(size, what)
        if kind == _BOOL and self.prefix.bytes[start : start + size].translate(None, b"\0\1"):
            raise LaminaError(f"{self.name}: {what} holds a boolean that is neither 0 nor 1")
        return list(struct.unpack_from(f"<{count}{code}", self.prefix.bytes, start))

    def _strings(self, count: int, what: str) -> list[str]:
        """Many strings at once: a vocabulary has 10^5 of them, so the loop does as little as it can."""
        length_at = struct.Struct("<Q").unpack_from
        begin = position = self.position
        spans: list[tuple[int, int]] = []
        while len(spans) < count:
            buffer, have = self.prefix.bytes, len(self.prefix.bytes)
            for _ in range(count - len(spans)):
                start = position + 8
                stop = start + length_at(buffer, position)[0] if start <= have else start
                if stop > have:
                    break
                spans.append((start - begin, stop - begin))
                position = stop
            if len(spans) < count and not self.prefix.reach(stop):
                raise LaminaError(
                    f"{self.name}: {what} claims {count} strings, and {self._bound} ends in number {len(spans)}"
                )
        self.position = position
        text = bytes(self.prefix.bytes[begin:position])
        try:
            return [text[start:stop].decode() for start, stop in spans]
        except UnicodeDecodeError:
            return [self._decode(begin + start, begin + stop, what) for start, stop in spans]

    def _decode(self, start: int, stop: int, what: str) -> str:
        try:
            return str(self.prefix.bytes[start:stop], "utf-8")
        except UnicodeDecodeError as error:
            raise LaminaError(f"{self.name}: {what} holds a string at byte {start} that is not UTF-8") from error


def _read_counts(cursor: _Cursor) -> tuple[int, int]:
    """How many tensors and key/value pairs the file claims, once its magic, version and length allow them."""
    name = cursor.name
    if not cursor.prefix.reach(4) or cursor.prefix.bytes[:4] != b"GGUF":
        raise LaminaError(f"{name}: does not begin with 'GGUF', as a GGUF file does")
    cursor.take(4, "the magic")
    version = cursor.number("<I", "the version")
    if version & 0xFFFF == 0:
        raise LaminaError(f"{name}: is a big-endian GGUF file; little-endian ones are accepted")
    if version not in (2, 3):
        raise LaminaError(f"{name}: is a GGUF file of version {version}; versions 2 and 3 are accepted")
    counts = cursor.number("<Q", "the tensor count"), cursor.number("<Q", "the metadata count")
    if counts[0] * 24 + counts[1] * 13 > cursor.left:  # what one tensor and one pair take at least
        raise LaminaError(
            f"{name}: claims {counts[0]} tensors and {counts[1]} metadata keys;"
            f" the {cursor.left} bytes left cannot describe so many"
        )
    return counts


def _alignment(name: str, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
        raise LaminaError(
            f"{name}: general.alignment is {shown(str(alignment))}; a power of two up to {_MAX_ALIGNMENT} is accepted"
        )
    return alignment


def _read_tensor_info(cursor: _Cursor) -> tuple[str, tuple[int, ...], int, int]:
    """Name, shape in torch order, type number and offset of the next tensor."""
    name = cursor.string("a tensor name")
    what = f"tensor {shown(name)}"
    dimensions = cursor.number("<I", what)
    if dimensions > 4:
        raise LaminaError(f"{cursor.name}: {what} claims {dimensions} dimensions; at most 4 are accepted")
    shape = tuple(cursor.number("<Q", what) for _ in range(dimensions))[::-1]
    return name, shape, cursor.number("<I", what), cursor.number("<Q", what)


def _format(where: str, kind: int, formats: Collection[str]) -> str:
    format = TYPES.get(kind)
    if format is None or format not in formats:
        said = f"{format} (type {kind})" if format else f"type {kind}"
        known = [name for name in TYPES.values() if name in formats]
        raise LaminaError(f"{where} is stored as {said}; known: {', '.join(known)}")
    return format


def _check_overlap(name: str, tensors: dict[str, Entry]) -> None:
    spans = sorted((entry.start, entry.stop, entry.name) for entry in tensors.values())
    for (_, end, before), (start, _, tensor) in pairwise(spans):
        if start < end:
            raise LaminaError(f"{name}: the data of tensor {shown(tensor)} overlaps that of {shown(before)}")
