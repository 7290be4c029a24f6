"""Block formats against the gguf package, bit for bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from lamina.ops.blocks import BLOCKS

# where the float16 scales of a block stand, for formats that the gguf package cannot quantise to
SCALES_AT = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}


def stored(name: str, rows: int, blocks: int) -> np.ndarray:
    """Blocks of real scales and every bit pattern of the fields. Shapes: uint8 [rows, blocks * nbytes]"""
    rng = np.random.default_rng(len(name) + rows)
    block = BLOCKS[name]
    if name not in SCALES_AT:
        values = rng.standard_normal((rows, blocks * block.elements), dtype=np.float32)
        return gguf.quants.quantize(values, gguf.GGMLQuantizationType[name])
    raw = rng.integers(0, 256, (rows * blocks, block.nbytes), dtype=np.uint8)
    for at in SCALES_AT[name]:
        scale = rng.standard_normal((rows * blocks, 1)).astype(np.float16) / 8
        raw[:, at : at + 2] = scale.view(np.uint8)
    return raw.reshape(rows, -1)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("shift", [0, 1])
def test_values_are_those_of_the_gguf_package(name: str, shift: int) -> None:
    raw = stored(name, rows=37, blocks=5)
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[name])
    assert len(np.unique(expected)) > (1000 if name != "MXFP4" else 15)
    memory = torch.zeros(raw.size + shift, dtype=torch.uint8)  # shift 1: scales at odd addresses
    memory[shift:] = torch.from_numpy(raw.reshape(-1))
    out = torch.full((expected.size,), float("nan"))
    BLOCKS[name].dequantise(memory[shift:], out)
    assert np.array_equal(out.numpy().view(np.int32), expected.reshape(-1).view(np.int32))


@pytest.mark.parametrize("name", BLOCKS)
def test_sizes_are_those_of_the_gguf_package(name: str) -> None:
    known = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]]
    assert (BLOCKS[name].elements, BLOCKS[name].nbytes) == known


def test_every_power() -> None:
    """The scale of MXFP4 is one byte; its smallest are subnormal."""
    raw = stored("MXFP4", rows=4, blocks=64).reshape(-1, BLOCKS["MXFP4"].nbytes)
    raw[:, 0] = np.arange(256)
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType.MXFP4)
    out = torch.full((expected.size,), float("nan"))
    BLOCKS["MXFP4"].dequantise(torch.from_numpy(raw.reshape(-1).copy()), out)
    assert np.array_equal(out.numpy().view(np.int32), expected.reshape(-1).view(np.int32))


@pytest.mark.parametrize("name", sorted(BLOCKS.keys() - {"MXFP4"}))
def test_extreme_scales(name: str) -> None:
    """Subnormal, largest, zero and negative-zero scales keep every bit, the sign of a zero included."""
    raw = stored(name, rows=4, blocks=3).reshape(-1, BLOCKS[name].nbytes)
    patterns = np.array([0x0001, 0x7BFF, 0x0000, 0x8000, 0x83FF, 0xFBFF], dtype="<u2").view(np.uint8).reshape(-1, 2)
    places = SCALES_AT.get(name, (0, 2) if name.endswith("_1") else (0,))
    for i in range(len(raw)):
        for k, at in enumerate(places):
            raw[i, at : at + 2] = patterns[(i + 2 * k) % len(patterns)]
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType[name])
    out = torch.full((expected.size,), float("nan"))
    BLOCKS[name].dequantise(torch.from_numpy(raw.reshape(-1).copy()), out)
    assert np.array_equal(out.numpy().view(np.int32), expected.reshape(-1).view(np.int32))
