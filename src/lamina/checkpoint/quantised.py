"""Weights that safetensors hold as several tensors: numbers of a few bits, and scales beside them.

What `quantization_config` says of a checkpoint is checked; which tensor is stored how follows from the tensors that
are there. Activations are computed in full precision, so their scales are passed over.
Source: https://github.com/vllm-project/compressed-tensors, arXiv 2412.19437 section 3.3, and published files
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from lamina.checkpoint.headers.table import shown
from lamina.checkpoint.tensors import StoredTensor, TensorFile
from lamina.errors import LaminaError, closest
from lamina.ops.grid import SCALES, Grid
from lamina.ops.packed import Packed

METHODS = ("fp8", "fbgemm_fp8", "mxfp4", "mxfp8", "compressed-tensors", "modelopt")
"""Values of `quant_method` that are understood."""

COMPRESSED = (
    *("float-quantized", "int-quantized", "naive-quantized", "pack-quantized", "nvfp4-pack-quantized"),
    *("mxfp4-pack-quantized", "mxfp8-quantized", "mixed-precision", "dense"),
)
"""Values of `format` under "compressed-tensors" that are understood."""

SKIPPED = {
    r".*\.(input_scale|activation_scale|input_global_scale|input_zero_point|input_scale_ub)": (
        "activations are computed in full precision"
    ),
    r".*\.([kvq]_scale|kv_scale|output_scale|[kv]_zero_point)": "the cache is kept in full precision",
}
"""Tensors that say how to round what we do not round."""

_NUMBERS = {"F8_E4M3": "e4m3", "F8_E5M2": "e5m2", "I8": "int8"}


@dataclass(frozen=True)
class Quantised(StoredTensor):
    """A tensor of which `raw` holds the numbers and `others` the scales, zeros and factor; all views of the map."""

    grid: Grid = field(default=Grid("int8", 1, 1, "F32"), kw_only=True)
    others: tuple[torch.Tensor | None, ...] = field(default=(), kw_only=True, repr=False, compare=False)
    transposed: bool = field(default=False, kw_only=True)  # type: ignore[misc]

    @property
    def nbytes(self) -> int:
        return self.raw.numel() + sum(part.nbytes for part in self.others if part is not None)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32

    def packed(self, dtype: torch.dtype) -> Packed | None:
        *stack, rows, columns = self.shape
        rows, columns = (columns, rows) if self.transposed else (rows, columns)
        codes = self.raw.view(*stack, rows, -1)
        return Packed(self.grid, (*stack, rows, columns), (codes, *self.others), dtype)

    def read(self) -> torch.Tensor:
        out = torch.empty(self.shape)
        self._expand(out)
        return out

    def copy_to(self, out: torch.Tensor) -> None:
        if tuple(out.shape) != self.shape:
            super().copy_to(out)  # says so
        with torch.no_grad():
            self._expand(out)

    def read_rows(self, start: int, stop: int) -> torch.Tensor:
        return self.read()[start:stop]

    def _expand(self, out: torch.Tensor) -> None:
        whole = self.packed(torch.float32)
        assert whole is not None
        out = out.mT if self.transposed else out
        for matrix, values in [(whole, out)] if whole.ndim == 2 else [(whole[e], out[e]) for e in range(len(whole))]:
            for start, stop, rows in matrix.pieces(torch.float32):
                values[start:stop] = rows


def quantised(file: TensorFile, config: Mapping[str, Any], where: str) -> tuple[TensorFile, dict[str, str]]:
    """The file with each quantised weight as one tensor, and what was passed over, with the reason.

    Raises: LaminaError for a method that is not known, or numbers and scales that do not fit each other
    """
    said = _said(config, where)
    reader = _Reader(file, said)
    tensors: dict[str, StoredTensor] = {}
    for name, stored in file.tensors.items():
        if (found := reader.weight(name, stored)) is not None:
            tensors[found.name] = found
    ignored = {
        name: reason
        for name in file.tensors
        for pattern, reason in SKIPPED.items()
        if said and re.fullmatch(pattern, name)
    }
    for name, stored in file.tensors.items():
        if name in reader.used or name in tensors or name in ignored:
            continue
        if stored.format in ("F8_E4M3", "F8_E5M2"):
            raise LaminaError(
                f"{stored.path}: the tensor {shown(name)} is stored as {stored.format}, and no scale of it"
                f" ({shown(name + '_scale_inv')} or {shown(name + '_scale')}) is there"
            )
        tensors[name] = stored
    return replace(file, tensors=tensors), ignored


def _said(config: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """What a config.json says of how weights are quantised; empty if nothing."""
    inner = config.get("text_config")
    places = [config, inner] if isinstance(inner, Mapping) else [config]
    keys = ("quantization_config", "compression_config")
    said = next((place[key] for place in places for key in keys if place.get(key)), {})
    if not isinstance(said, Mapping):
        raise LaminaError(f"{where}: 'quantization_config' is {shown(str(said))}; an object is expected")
    method = said.get("quant_method", "compressed-tensors" if "config_groups" in said else None)
    if said and method not in METHODS:
        raise LaminaError(f"{where}: 'quant_method' is {method!r}; {closest(str(method), METHODS)}")
    kind = said.get("format", "dense") if method == "compressed-tensors" else "dense"
    if kind not in COMPRESSED:
        raise LaminaError(f"{where}: 'quantization_config' has the format {kind!r}; {closest(str(kind), COMPRESSED)}")
    sparsity = said.get("sparsity_config") or {}
    if isinstance(sparsity, Mapping) and sparsity.get("format", "dense") != "dense":
        raise LaminaError(f"{where}: 'sparsity_config' has the format {sparsity['format']!r}; only 'dense' is known")
    return said


def _tiles(said: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The sizes of tiles that a config names."""
    groups = said.get("config_groups")
    schemes = (
        [g.get("weights") or {} for g in groups.values() if isinstance(g, Mapping)]
        if isinstance(groups, Mapping)
        else []
    )
    blocks = [said.get("weight_block_size"), *(scheme.get("block_structure") for scheme in schemes)]
    sizes = [tuple(block) for block in blocks if isinstance(block, list) and len(block) == 2]
    sizes += [(1, scheme.get("group_size")) for scheme in schemes]
    return [size for size in sizes if all(type(n) is int and n > 0 for n in size)] or [(128, 128)]


class _Reader:
    """Puts the tensors of quantised weights together; `used` are the names of those it took."""

    def __init__(self, file: TensorFile, said: Mapping[str, Any]) -> None:
        self.tensors, self.tiles, self.used = file.tensors, _tiles(said), set[str]()

    def weight(self, name: str, stored: StoredTensor) -> Quantised | None:
        """The weight whose numbers this tensor holds, or None if it holds no such numbers."""
        if name.endswith("_blocks") and stored.format == "U8" and len(stored.shape) == 4:
            return self._mxfp4(name.removesuffix("_blocks"), stored)
        if name.endswith(".weight_packed"):
            name = name.removesuffix("_packed")
            return (
                self._integers(name, stored) if stored.format == "I32" else self._fours(name, stored, "_global_scale")
            )
        if stored.format not in (*_NUMBERS, "U8") or (scale := self._scale(name)) is None:
            return None
        if stored.format == "U8":
            return self._fours(name, stored, "_scale_2")
        if stored.format == "I8" and SCALES.get(scale.format) == torch.float8_e8m0fnu:
            return self._fours(name, stored, "")
        zeros = self._take(name + "_zero_point", None)
        return self._put(name, stored, _NUMBERS[stored.format], stored.shape, scale, zeros=zeros)

    def _mxfp4(self, name: str, stored: StoredTensor) -> Quantised:
        experts, rows, groups, half = stored.shape
        scale = self._take(name + "_scales", stored)
        shape = (experts, rows, groups * half * 2)
        found = self._put(name, stored, "e2m1", shape, scale, tiles=[(1, 2 * half)])
        return replace(found, shape=(experts, shape[2], rows), transposed=True)

    def _fours(self, name: str, stored: StoredTensor, factor: str) -> Quantised:
        """Two e2m1 numbers a byte, with a scale for 16 or 32, and in some files one for all."""
        if stored.format not in ("U8", "I8") or not stored.shape:
            what = f"is {stored.format} {list(stored.shape)}; two numbers a byte are expected, rows of U8 or I8"
            raise self._wrong(stored, what)
        scale = self._scale(name)
        if scale is None:
            raise self._lacks(stored, name + "_scale")
        shape = (*stored.shape[:-1], 2 * stored.shape[-1])
        whole = self._take(name + factor, None) if factor else None
        found = self._put(name, stored, "e2m1", shape, scale, tiles=[(1, 16), (1, 32)], whole=whole)
        return replace(found, grid=replace(found.grid, divided=factor == "_global_scale" and whole is not None))

    def _integers(self, name: str, stored: StoredTensor) -> Quantised:
        """Whole numbers of four or eight bits, less 8 or 128, in words of 32 bits."""
        if name + "_g_idx" in self.tensors:
            raise self._wrong(self.tensors[name + "_g_idx"], "reorders columns (actorder), which is not supported")
        scale = self._take(name + "_scale", stored)
        said = self._take(name + "_shape", stored)
        if said.format not in ("I32", "I64") or not stored.shape or said.shape != (len(stored.shape),):
            what = f"is {said.format} {list(said.shape)}; {len(stored.shape)} whole numbers are expected, the sizes"
            raise self._wrong(said, what)
        numbers = said.read().tolist()
        if numbers[:-1] != list(stored.shape[:-1]) or numbers[-1] < 1:
            raise self._wrong(stored, f"has shape {list(stored.shape)}, and {shown(name + '_shape')} says {numbers}")
        words = {4: -(-numbers[-1] // 8), 8: -(-numbers[-1] // 4)}
        bits = next((bits for bits, count in words.items() if count == stored.shape[-1]), None)
        if bits is None:
            raise self._wrong(stored, f"has {stored.shape[-1]} words for {numbers[-1]} numbers; 4 or 8 bits are known")
        zeros = self._take(name + "_zero_point", None)
        return self._put(name, stored, f"uint{bits}", tuple(numbers), scale, zeros=zeros)

    def _put(
        self,
        name: str,
        stored: StoredTensor,
        code: str,
        shape: tuple[int, ...],
        scale: StoredTensor,
        tiles: Sequence[tuple[int, int]] = (),
        zeros: StoredTensor | None = None,
        whole: StoredTensor | None = None,
    ) -> Quantised:
        if len(shape) not in (2, 3) or 0 in shape:
            raise self._wrong(stored, f"has shape {list(stored.shape)}; a matrix, or a stack of them, is expected")
        kind = "F8_E8M0" if scale.format == "U8" else scale.format
        if kind not in SCALES:
            raise self._wrong(scale, f"is stored as {scale.format}; a scale is {', '.join(SCALES)} or U8")
        *stack, rows, _ = shape
        tile, grid = self._tile(stored, shape, scale, tiles)
        scales = scale.raw.clone().view(*stack, *grid, -1).flatten(-2)
        points = None
        if zeros is not None:
            points = _zeros(zeros, code, stack, rows, grid[1])
            if points is None:
                raise self._wrong(zeros, f"has shape {list(zeros.shape)}, and does not fit {list(shape)}")
            if tile[0] > 1:  # one for all rows
                tile, scales = (1, tile[1]), scales.expand(*stack, rows, -1).contiguous()
        factor = None
        if whole is not None:
            if math.prod(whole.shape) != math.prod(stack):
                raise self._wrong(whole, f"has shape {list(whole.shape)}; one number for {list(shape)} is expected")
            factor = whole.read().float().reshape(*stack, 1).view(torch.uint8).clone()
        self.used |= {stored.name, scale.name}
        others = scales, points, factor
        return Quantised(
            name, shape, stored.format, stored.path, stored.raw, grid=Grid(code, *tile, kind), others=others
        )

    def _tile(
        self, stored: StoredTensor, shape: tuple[int, ...], scale: StoredTensor, tiles: Sequence[tuple[int, int]]
    ) -> tuple[tuple[int, int], tuple[int, int]]:
        """The tile that fits the shapes, and how many there are along rows and columns; `tiles` are all that may be."""
        *stack, rows, columns = shape
        found = scale.shape
        sizes = list(tiles) or [(rows, columns), (1, columns), *self.tiles]
        if not tiles and len(found) == len(shape) and found[-2] == rows and found[-1] and columns % found[-1] == 0:
            sizes.append((1, columns // found[-1]))
        for size in sizes:
            grid = -(-rows // size[0]), -(-columns // size[1])
            likely = [(*stack, *grid)]
            likely += [(*stack, grid[0])] if grid[1] == 1 else []
            likely += [tuple(stack)] if grid == (1, 1) else []
            if found in likely:
                return size, grid
        tile = " x ".join(map(str, (tiles or self.tiles)[0]))
        raise self._wrong(
            scale, f"has shape {list(found)}, and does not fit {shown(stored.name)} {list(shape)} in tiles of {tile}"
        )

    def _scale(self, name: str) -> StoredTensor | None:
        names = (name + "_scale_inv", name + "_scale", name.removesuffix(".weight") + ".scale")
        found = next((n for n in names if n in self.tensors), None)
        return None if found is None else self._take(found, None)

    def _take(self, name: str, needed_by: StoredTensor | None) -> Any:
        """A tensor beside the numbers.

        Raises: LaminaError if it is missing and `needed_by` is given
        """
        if name in self.tensors:
            self.used.add(name)
            return self.tensors[name]
        if needed_by is not None:
            raise self._lacks(needed_by, name)
        return None

    def _lacks(self, stored: StoredTensor, name: str) -> LaminaError:
        return LaminaError(
            f"{stored.path}: the tensor {shown(name)} is missing; {shown(stored.name)} cannot be read without"
        )

    def _wrong(self, stored: StoredTensor, what: str) -> LaminaError:
        return LaminaError(f"{stored.path}: the tensor {shown(stored.name)} {what}")


def _zeros(zeros: StoredTensor, code: str, stack: list[int], rows: int, groups: int) -> torch.Tensor | None:
    """The number that stands for zero, for each group of each row; None if the shape does not fit.

    Shapes: packed along rows in words of 32 bits, or one byte each -> uint8 [... rows groups]
    """
    if zeros.format == "I32":
        bits = 4 if code == "uint4" else 8
        words = -(-rows * bits // 32)
        if zeros.shape != (*stack, words, groups):
            return None
        at = torch.arange(0, 32, bits, dtype=torch.int32)[:, None]
        fields = (zeros.read().unsqueeze(-2) >> at) & ((1 << bits) - 1)
        return fields.flatten(-3, -2)[..., :rows, :].to(torch.uint8).contiguous()
    count, one = math.prod(zeros.shape), math.prod(stack)
    if zeros.format != "I8" or count not in (one * rows * groups, one):
        return None
    points = zeros.read().reshape(*stack, *((1, 1) if count == one else (rows, groups)))
    points = points if code == "int8" else points.int() + (8 if code == "uint4" else 128)
    return points.to(torch.uint8).expand(*stack, rows, groups).contiguous()
