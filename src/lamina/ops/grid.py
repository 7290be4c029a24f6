"""Numbers of a few bits beside a grid of scales: fp8, int8, int4, mxfp4, nvfp4 as safetensors hold them.

A matrix is cut into tiles of `rows` x `columns` numbers that share a scale. The value is (number - zero) * scale, one
rounding in float32; where there is a factor, the scale is multiplied or divided by it before.
Source: arXiv 2412.19437, section 3.3 (tiles of 128 x 128); OCP Microscaling Formats 1.0 (e2m1, e8m0)
Differs: the scale byte 255 is NaN, as that specification says; one reference makes it 2^128
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SCALES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3": torch.float8_e4m3fn,
}
"""What a scale may be stored as."""

BITS = {"e4m3": 8, "e5m2": 8, "e2m1": 4, "uint4": 4, "uint8": 8, "int8": 8}
"""Kinds of numbers, and bits of each. Two of four bits stand in a byte, the first in its lower half."""

_E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
_E2M1 = torch.cat([_E2M1, -_E2M1])  # a sign, two bits of exponent, one of mantissa
_ZERO = {"uint4": 8, "uint8": 128}


@dataclass(frozen=True)
class Grid:
    """One way of storing a matrix: the kind of its numbers, the tiles that share a scale, and the scale's type.

    Fields: `divided` says that scales are divided by a factor, not multiplied
    """

    code: str  # a key of BITS
    rows: int
    columns: int
    scale: str  # a key of SCALES
    divided: bool = False

    @property
    def name(self) -> str:
        return f"{self.code}, {self.scale} for {self.rows} x {self.columns}"

    def row_bytes(self, columns: int) -> int:
        """Bytes that so many numbers take at least."""
        return -(-columns * BITS[self.code] // 8)

    def values(
        self, codes: Tensor, scales: Tensor, zeros: Tensor | None, factor: Tensor | None, columns: int
    ) -> Tensor:
        """The values of rows, each with its own row of scales.

        Shapes: codes uint8 [n bytes], scales uint8 [n bytes], zeros [n groups], factor uint8 [4] -> float32 [n columns]
        """
        numbers = self._numbers(codes)[:, :columns]
        scale = scales.contiguous().view(SCALES[self.scale]).float()
        if factor is not None:
            scale = scale / factor.view(torch.float32) if self.divided else scale * factor.view(torch.float32)
        if zeros is not None:
            numbers = numbers - self._wide(zeros.view(torch.int8) if self.code == "int8" else zeros, columns)
        elif self.code in _ZERO:
            numbers = numbers - _ZERO[self.code]
        return numbers * self._wide(scale, columns)

    def _numbers(self, codes: Tensor) -> Tensor:
        if self.code == "e4m3":
            return codes.view(torch.float8_e4m3fn).float()
        if self.code == "e5m2":
            return codes.view(torch.float8_e5m2).float()
        if self.code == "int8":
            return codes.view(torch.int8).float()
        if BITS[self.code] == 4:
            codes = torch.stack((codes & 15, codes >> 4), -1).flatten(1)
        return _E2M1.to(codes.device)[codes.int()] if self.code == "e2m1" else codes.float()

    def _wide(self, groups: Tensor, columns: int) -> Tensor:
        """One for each number. Shapes: [n groups] -> [n columns], or [n 1] where a group is a row"""
        return groups if groups.shape[1] == 1 else groups.repeat_interleave(self.columns, 1)[:, :columns]
