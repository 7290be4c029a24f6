"""A header as a table: what each tensor is, how it is stored and where its bytes stand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina.checkpoint.headers.files import File
from lamina.errors import LaminaError

PLAIN: dict[str, int] = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
"""Bytes of one value in formats that store each value alone."""

BLOCKS: dict[str, tuple[int, int]] = {
    "Q4_0": (32, 18), "Q4_1": (32, 20), "Q5_0": (32, 22), "Q5_1": (32, 24), "Q8_0": (32, 34), "Q8_1": (32, 40),
    "Q2_K": (256, 84), "Q3_K": (256, 110), "Q4_K": (256, 144), "Q5_K": (256, 176), "Q6_K": (256, 210),
    "Q8_K": (256, 292), "IQ1_S": (256, 50), "IQ1_M": (256, 56), "IQ2_XXS": (256, 66), "IQ2_XS": (256, 74),
    "IQ2_S": (256, 82), "IQ3_XXS": (256, 98), "IQ3_S": (256, 110), "IQ4_NL": (32, 18), "IQ4_XS": (256, 136),
    "TQ1_0": (256, 54), "TQ2_0": (256, 66), "MXFP4": (32, 17), "NVFP4": (64, 36), "Q1_0": (128, 18),
}  # fmt: skip
"""Block formats of GGUF: the values in a block, and its bytes."""

_MAX_DIMENSIONS = 64
_MAX_ELEMENTS = 1 << 59  # so that bytes and strides always fit 64 bits


@dataclass(frozen=True)
class Entry:
    """One tensor that a header lists.

    Units: shape is in torch order (the last dimension is contiguous); start and stop are bytes of the file
    """

    name: str
    shape: tuple[int, ...]
    format: str  # a key of PLAIN or of BLOCKS
    start: int
    stop: int
    file: File = field(repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        return self.stop - self.start

    def data(self) -> bytes:
        """The bytes as stored."""
        return self.file.read(self.start, self.stop)


@dataclass(frozen=True)
class Header:
    """What a file says before its data; `path` names it in sentences, `stem` is its name without the suffix."""

    file: File
    tensors: Mapping[str, Entry]
    metadata: dict[str, Any]

    @property
    def path(self) -> str:
        return self.file.name

    @property
    def stem(self) -> str:
        return self.file.stem


def count_elements(where: str, shape: tuple[int, ...]) -> int:
    """How many elements a shape from a file has, once it is known to be one that torch can hold.

    Raises: LaminaError, beginning with `where`, if it is not
    """
    if len(shape) > _MAX_DIMENSIONS or math.prod(max(size, 1) for size in shape) > _MAX_ELEMENTS:
        sizes = f"{len(shape)} dimensions" if len(shape) > _MAX_DIMENSIONS else "too many elements"
        raise LaminaError(
            f"{where} claims {sizes}; at most {_MAX_DIMENSIONS} dimensions and {_MAX_ELEMENTS} elements are accepted"
        )
    return math.prod(shape)


def count_bytes(where: str, shape: tuple[int, ...], format: str) -> int:
    """Bytes that a tensor of that shape takes in that format.

    Raises: LaminaError, beginning with `where`, if it cannot have that shape
    """
    elements = count_elements(where, shape)
    if format in PLAIN:
        return elements * PLAIN[format]
    values, nbytes = BLOCKS[format]
    if not shape or shape[-1] % values:
        raise LaminaError(
            f"{where} of shape {list(shape)} is stored as {format}; its last dimension must be a multiple of {values}"
        )
    return elements // values * nbytes


def shown(name: str) -> str:
    """A name from a file, quoted and cut so that it fits in a sentence."""
    return repr(name if len(name) <= 100 else name[:97] + "...")
