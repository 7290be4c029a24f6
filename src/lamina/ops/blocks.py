"""GGUF block formats: how a row of weights is packed into small blocks, and its float32 values.

Every format is one function that unpacks n blocks into small integers `q`, a scale for each group of them
and, in some, an offset: the value is scale * q + offset. Each product is exact in float32 (at most 11 + 7 + 6
bits of mantissa), so there is one rounding, and the result does not depend on the order of operations.
Source: the layouts of ggml (ggml-common.h); the values those of `gguf.quants`, which the tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lamina.checkpoint.headers import table

PIECE = 127 * 256
"""Values converted at a time. They stay in the cache, and below the 2^15 elements from which torch gives an
operation to several threads: operations as short as these gain nothing from it, and on a busy machine each of
them would wait for the slowest thread."""

Unpacked = tuple[Tensor, Tensor, Tensor | None]


@dataclass(frozen=True)
class BlockFormat:
    """One block format: `elements` values in `nbytes` bytes.

    Shapes: unpack: uint8 [n nbytes] -> q [n groups size], scale [n groups 1], offset likewise or None
    """

    name: str
    elements: int
    nbytes: int
    unpack: Callable[[Tensor], Unpacked]

    def dequantise(self, raw: Tensor, out: Tensor) -> None:
        """Write the values of whole blocks into `out`.

        Shapes: raw uint8 [n * nbytes]; out float32 [n * elements], contiguous
        """
        blocks = PIECE // self.elements
        pieces = zip(raw.split(blocks * self.nbytes), out.split(blocks * self.elements), strict=True)
        for piece, values in pieces if out.numel() else ():
            if piece.storage_offset() % 2:  # a float16 can only be viewed at an even address
                piece = piece.clone()
            q, scale, offset = self.unpack(piece.view(-1, self.nbytes))
            values = values.view(q.shape)
            torch.mul(q, scale, out=values)
            if offset is not None:
                values.add_(offset)


def _half(raw: Tensor) -> Tensor:
    """A float16 stored in two bytes, as float32. Shapes: uint8 [n 2] -> [n 1 1]"""
    return raw.view(torch.float16).float()[:, :, None]


# how far each field of a byte is shifted, by the width of a field
_SHIFTS = {bits: torch.arange(0, 8, bits, dtype=torch.uint8)[:, None] for bits in (1, 2, 4)}


def _fields(raw: Tensor, bits: int, width: int) -> Tensor:
    """Split bytes into fields of `bits` bits: of each `width` bytes all the lowest fields, then all the next.

    Shapes: uint8 [n k] -> uint8 [n k * 8 / bits]
    """
    runs = raw.unflatten(1, (-1, 1, width))
    return (runs >> _SHIFTS[bits].to(raw.device)).bitwise_and_((1 << bits) - 1).view(len(raw), -1)


# for each byte, its eight bits (lowest first) as eight bytes that hold 0 or 16, read as one int64
_BITS = (torch.arange(256)[:, None] >> torch.arange(8)) & 1
_FIFTH_BITS = (_BITS << 4).to(torch.uint8).view(torch.int64)[:, 0]


def _fifth(raw: Tensor) -> Tensor:
    """The fifth bits of a 32-value block, in place (0 or 16). Shapes: uint8 [n 4] -> uint8 [n 32]"""
    return _FIFTH_BITS.to(raw.device).index_select(0, raw.int().view(-1)).view(-1, 4).view(torch.uint8)


def _signed(q: Tensor, zero: int) -> Tensor:
    """Unsigned fields less the value that stands for zero. Shapes: uint8 [...] -> int8 [...]"""
    return (q - zero).view(torch.int8)


# the values of four bits (sign, two of exponent, one of mantissa), doubled: whole numbers
_E2M1 = torch.tensor([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], dtype=torch.int8)


def _half_power(raw: Tensor) -> Tensor:
    """Half of 2^(e - 127) for a byte e, also where that is subnormal. Shapes: uint8 [n 1] -> [n 1 1]"""
    e = raw.int()
    return torch.where(e < 2, 0x00200000 << e, (e - 1) << 23).view(torch.float32)[:, :, None]


def _mxfp4(raw: Tensor) -> Unpacked:
    e, q = raw.split((1, 16), dim=1)
    return _E2M1.to(q.device)[_fields(q, 4, 16).int()][:, None], _half_power(e), None


def _q4_0(raw: Tensor) -> Unpacked:
    d, q = raw.split((2, 16), dim=1)
    return _signed(_fields(q, 4, 16), 8)[:, None], _half(d), None


def _q4_1(raw: Tensor) -> Unpacked:
    d, m, q = raw.split((2, 2, 16), dim=1)
    return _fields(q, 4, 16)[:, None], _half(d), _half(m)


def _q5_0(raw: Tensor) -> Unpacked:
    d, high, q = raw.split((2, 4, 16), dim=1)
    return _signed(_fields(q, 4, 16) | _fifth(high), 16)[:, None], _half(d), None


def _q5_1(raw: Tensor) -> Unpacked:
    d, m, high, q = raw.split((2, 2, 4, 16), dim=1)
    return (_fields(q, 4, 16) | _fifth(high))[:, None], _half(d), _half(m)


def _q8_0(raw: Tensor) -> Unpacked:
    d, q = raw.split((2, 32), dim=1)
    return q.view(torch.int8)[:, None], _half(d), None


def _q2_k(raw: Tensor) -> Unpacked:
    scales, q, d, m = raw.split((16, 64, 2, 2), dim=1)
    scale = _half(d) * (scales & 15)[:, :, None]
    offset = -(_half(m) * (scales >> 4)[:, :, None])
    return _fields(q, 2, 32).view(-1, 16, 16), scale, offset


def _q3_k(raw: Tensor) -> Unpacked:
    high, q, scales, d = raw.split((32, 64, 12, 2), dim=1)
    six = _fields(scales[:, :8], 4, 8) | (_fields(scales[:, 8:], 2, 4) << 4)
    scale = _half(d) * _signed(six, 32)[:, :, None]
    q = _fields(q, 2, 32) | (_fields(high, 1, 32) << 2)
    return _signed(q, 4).view(-1, 16, 16), scale, None


def _scales_k(raw: Tensor) -> tuple[Tensor, Tensor]:
    """The 6-bit scales and offsets of Q4_K and Q5_K. Shapes: uint8 [n 12] -> uint8 [n 8 1], twice"""
    a, b, low = raw.split(4, dim=1)
    scale = torch.cat((a & 63, (low & 15) | ((a >> 6) << 4)), dim=1)
    offset = torch.cat((b & 63, (low >> 4) | ((b >> 6) << 4)), dim=1)
    return scale[:, :, None], offset[:, :, None]


def _q4_k(raw: Tensor) -> Unpacked:
    d, m, scales, q = raw.split((2, 2, 12, 128), dim=1)
    scale, offset = _scales_k(scales)
    return _fields(q, 4, 32).view(-1, 8, 32), _half(d) * scale, -(_half(m) * offset)


def _q5_k(raw: Tensor) -> Unpacked:
    d, m, scales, high, q = raw.split((2, 2, 12, 32, 128), dim=1)
    scale, offset = _scales_k(scales)
    five = _fields(q, 4, 32) | (_fields(high, 1, 32) << 4)
    return five.view(-1, 8, 32), _half(d) * scale, -(_half(m) * offset)


def _q6_k(raw: Tensor) -> Unpacked:
    low, high, scales, d = raw.split((128, 64, 16, 2), dim=1)
    six = _fields(low, 4, 64) | (_fields(high, 2, 32) << 4)
    return _signed(six, 32).view(-1, 16, 16), _half(d) * scales.view(torch.int8)[:, :, None], None


_UNPACK = {
    "Q4_0": _q4_0, "Q4_1": _q4_1, "Q5_0": _q5_0, "Q5_1": _q5_1, "Q8_0": _q8_0,
    "Q2_K": _q2_k, "Q3_K": _q3_k, "Q4_K": _q4_k, "Q5_K": _q5_k, "Q6_K": _q6_k,
    "MXFP4": _mxfp4,
}  # fmt: skip
BLOCKS = {name: BlockFormat(name, *table.BLOCKS[name], unpack) for name, unpack in _UNPACK.items()}
