"""Packed weights: their values against the decoders that published them, C against torch, products against expanded."""

from __future__ import annotations

import copy

import compressed_tensors.compressors.pack_quantized.base as pack
import gguf
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from compressed_tensors.compressors.nvfp4.base import NVFP4PackedCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from torch.utils.flop_counter import FlopCounterMode
from transformers.integrations.finegrained_fp8 import Fp8Dequantize
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from lamina.ops import linear as module
from lamina.ops import native
from lamina.ops.blocks import BLOCKS
from lamina.ops.grid import Grid
from lamina.ops.linear import linear, lookup
from lamina.ops.packed import Packed, stacked
from tests.checkpoint.test_blocks import stored


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def raw(*shape: int, most: int = 256, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, most, shape, generator=random(seed), dtype=torch.uint8)


def scales(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> torch.Tensor:
    """Bytes of scales that are neither tiny nor large."""
    values = torch.rand(shape, generator=random(seed)) + 0.01
    return values.to(dtype).view(torch.uint8).view(*shape[:-1], -1)


def low(*shape: int) -> torch.Tensor:
    return scales(*shape, dtype=torch.bfloat16)


ZEROS, ZERO = raw(37, 3, most=16, seed=5), raw(37, 1, seed=5)


def block(name: str, rows: int, blocks: int) -> Packed:
    found = BLOCKS[name]
    return Packed(found, (rows, blocks * found.elements), [torch.from_numpy(stored(name, rows, blocks))])


def fp8(rows: int, columns: int, tile: tuple[int, int], dtype: torch.dtype = torch.float32) -> Packed:
    """Every byte, the two that are no number left out."""
    codes = torch.where((found := raw(rows, columns)) & 127 == 127, 1, found)
    grid = -(-rows // tile[0]), -(-columns // tile[1])
    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float8_e8m0fnu: "F8_E8M0"}
    return Packed(Grid("e4m3", *tile, names[dtype]), (rows, columns), [codes, scales(*grid, dtype=dtype)])


EXAMPLES = {
    **{name: lambda name=name: block(name, 37, 6) for name in BLOCKS},
    "fp8-128": lambda: fp8(259, 333, (128, 128)),
    "fp8-e8m0": lambda: fp8(259, 333, (128, 128), torch.float8_e8m0fnu),
    "fp8-rows-f16": lambda: fp8(37, 333, (1, 333), torch.float16),
    "fp8-one": lambda: fp8(37, 333, (37, 333)),
    "fp8-e5m2": lambda: Packed(Grid("e5m2", 1, 77, "BF16"), (9, 77), [raw(9, 77, most=124), low(9, 1)]),
    "mxfp4": lambda: Packed(Grid("e2m1", 1, 32, "F8_E8M0"), (37, 1120), [raw(37, 560), raw(37, 35, most=140)]),
    "mxfp4-odd": lambda: Packed(Grid("e2m1", 1, 32, "F8_E8M0"), (9, 45), [raw(9, 23), raw(9, 2, most=140)]),
    "nvfp4": lambda: nvfp4(True),
    "nvfp4-times": lambda: nvfp4(False),
    "int4": lambda: Packed(Grid("uint4", 1, 128, "BF16"), (37, 1280), [raw(37, 640), low(37, 10)]),
    "int4-zeros": lambda: Packed(Grid("uint4", 1, 128, "F32"), (37, 300), [raw(37, 152), scales(37, 3), ZEROS]),
    "int8": lambda: Packed(Grid("int8", 1, 301, "F32"), (37, 301), [raw(37, 301), scales(37, 1)]),
    "int8-zeros": lambda: Packed(Grid("int8", 1, 301, "F32"), (37, 301), [raw(37, 301), scales(37, 1), ZERO]),
    "uint8": lambda: Packed(Grid("uint8", 1, 43, "F32"), (37, 129), [raw(37, 132), scales(37, 3)]),
}  # fmt: skip


def nvfp4(divided: bool) -> Packed:
    factor = torch.tensor([3.7]).view(torch.uint8)
    parts = [raw(37, 560), scales(37, 70, dtype=torch.float8_e4m3fn), None, factor]
    return Packed(Grid("e2m1", 1, 16, "F8_E4M3", divided), (37, 1120), parts)


@pytest.fixture(params=EXAMPLES)
def packed(request) -> Packed:
    return EXAMPLES[request.param]()


@pytest.fixture
def no_native(monkeypatch):
    monkeypatch.setattr("lamina.ops.packed.reachable", lambda *tensors: None)


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.int32)


def dense(packed: Packed) -> torch.Tensor:
    """Its values by torch alone."""
    return packed._values(slice(None), torch.arange(len(packed)))


# -------------------------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("threads", [1, 2])
def test_c_equals_torch(packed, threads):
    assert not isinstance(native.library(), str), "the tests need the native functions"
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    out = torch.full(packed.shape, float("nan"))
    assert packed.rows(0, len(packed), out) is out
    torch.set_num_threads(before)
    assert torch.equal(bits(out), bits(dense(packed)))
    assert len(out.unique()) > 12


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_those_of_the_gguf_package(name):
    expected = gguf.quants.dequantize(stored(name, 37, 6), gguf.GGMLQuantizationType[name])
    assert np.array_equal(block(name, 37, 6).rows(0, 37).numpy().view(np.int32), expected.view(np.int32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float8_e8m0fnu], ids=str)
@pytest.mark.parametrize("tile", [(128, 128), (4, 6), (1, 32), (256, 384)], ids=str)
def test_fp8_is_that_of_transformers(tile, dtype):
    one = fp8(256, 384, tile, dtype)
    codes, grid = one.codes.view(torch.float8_e4m3fn), one.scales.view(dtype)
    expected = Fp8Dequantize(None)._dequantize_one(codes, grid, torch.float32)
    assert torch.equal(bits(one.rows(0, 256)), bits(expected))


@pytest.mark.parametrize("code", ["e4m3", "e5m2"])
def test_every_fp8_number(code):
    one = Packed(
        Grid(code, 1, 256, "F32"), (1, 256), [torch.arange(256).byte()[None], torch.ones(1, 1).view(torch.uint8)]
    )
    kind = torch.float8_e4m3fn if code == "e4m3" else torch.float8_e5m2
    assert torch.equal(one.rows(0, 1)[0].nan_to_num(9e9), one.codes[0].view(kind).float().nan_to_num(9e9))


def test_mxfp4_is_that_of_transformers():
    blocks, exponents = raw(3, 5, 7, 16), raw(3, 5, 7, most=250, seed=2)
    expected = convert_moe_packed_tensors(blocks, exponents, dtype=torch.float32)
    stack = Packed(Grid("e2m1", 1, 32, "F8_E8M0"), (3, 5, 224), [blocks.flatten(2), exponents])
    assert torch.equal(stack.dense().mT, expected)
    assert expected.isfinite().all()


def test_nvfp4_is_that_of_compressed_tensors():
    one = nvfp4(True)
    state = {
        "weight_packed": one.codes,
        "weight_scale": one.scales.view(torch.float8_e4m3fn),
        "weight_global_scale": one.factor.view(torch.float32),
    }
    weights = QuantizationArgs(num_bits=4, type="float", strategy="tensor_group", group_size=16)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    expected = NVFP4PackedCompressor.decompress(state, scheme)["weight"]
    assert expected.dtype == torch.bfloat16  # it rounds to that; ours is what it rounds
    assert torch.equal(one.rows(0, 37).bfloat16(), expected)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group", [64, None])
@pytest.mark.parametrize("width", [4, 8])
def test_integers_are_those_of_compressed_tensors(width, group, symmetric):
    strategy = {"strategy": "group", "group_size": group} if group else {"strategy": "channel"}
    weights = QuantizationArgs(num_bits=width, type="int", symmetric=symmetric, **strategy)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    rows, columns, half = 37, 320, 1 << (width - 1)
    groups = columns // group if group else 1
    grid = scales(rows, groups)
    points = torch.randint(-half, half, (rows, groups), generator=random(4), dtype=torch.int8)
    numbers = torch.randint(-half, half, (rows, columns), generator=random(5), dtype=torch.int8)
    state = {
        "weight_packed": pack.pack_to_int32(numbers, width),
        "weight_scale": grid.view(torch.float32),
        "weight_shape": torch.tensor([rows, columns]),
    }
    zeros = None
    if not symmetric:
        state["weight_zero_point"] = pack.pack_to_int32(points, width, packed_dim=0)
        zeros = (points.int() + half).byte()
    expected = pack.PackedQuantizationCompressor.decompress(state, scheme)["weight"]
    codes = state["weight_packed"].view(torch.uint8)
    one = Packed(Grid(f"uint{width}", 1, group or columns, "F32"), (rows, columns), [codes, grid, zeros])
    assert torch.equal(bits(one.rows(0, rows) + 0.0), bits(expected + 0.0))  # but for the sign of a zero


# ------------------------------------------------------------------------------------------------------ products


@pytest.mark.parametrize("tokens", [1, 3, 8, 9, 70])
def test_a_product_is_that_of_the_expanded_weight(packed, tokens):
    x, bias = torch.randn(2, tokens, packed.shape[1], generator=random()), torch.randn(len(packed), generator=random(1))
    weight = dense(packed).double()
    with torch.no_grad():
        for given, added in ((x[0], None), (x, bias)):
            y = linear(given, packed, added)
            expected = F.linear(given.double(), weight, None if added is None else added.double())
            assert y.shape == expected.shape
            assert float((y - expected).abs().max() / expected.abs().max()) <= 1e-6


def test_few_tokens_are_multiplied_in_c(monkeypatch):
    one, x = block("Q4_1", 37, 6), torch.randn(8, 192)
    monkeypatch.setattr(Packed, "rows", None)
    monkeypatch.setattr(Packed, "_values", None)
    with torch.no_grad():
        linear(x, one)
        with pytest.raises(TypeError):
            linear(torch.randn(9, 192), one)


def test_without_c_it_is_the_same(packed, no_native):
    x = torch.randn(3, packed.shape[1], generator=random())
    with torch.no_grad():
        got, expected = linear(x, packed), F.linear(x, dense(packed))
    assert torch.equal(got, expected)
    assert torch.equal(bits(packed.rows(1, 5)), bits(dense(packed)[1:5]))
    ids = torch.tensor([[3, 0, 3], [1, 2, 4]])
    assert torch.equal(bits(lookup(ids, packed)), bits(dense(packed)[ids]))


@pytest.mark.parametrize("piece", [1, 700, 1 << 18])
def test_gradients_flow_to_the_input(packed, piece, monkeypatch):
    """Whatever the piece, whole or ragged."""
    monkeypatch.setattr("lamina.ops.packed.PIECE", piece)
    monkeypatch.setattr(module, "PIECE", piece)
    weight = dense(packed).double()
    ours = torch.randn(2, 3, packed.shape[1], generator=random()).requires_grad_()
    theirs = ours.detach().double().requires_grad_()
    out = torch.randn(2, 3, len(packed), generator=random(1))
    (linear(ours, packed) * out).sum().backward()
    (F.linear(theirs, weight) * out).sum().backward()
    assert float((ours.grad - theirs.grad).abs().max() / theirs.grad.abs().max()) <= 1e-6
    assert list(packed.parameters()) == []


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_to_compute_in(dtype):
    one = block("Q6_K", 11, 2).to(dtype)
    assert one.dtype == dtype
    assert one.codes.dtype == torch.uint8  # the bytes stay what they are
    x = torch.randn(3, 512, generator=random()).to(dtype)
    with torch.no_grad():
        y = linear(x, one)
        assert y.dtype == dtype
        assert torch.equal(y, F.linear(x, dense(one).to(dtype)))
    assert torch.equal(one.dense(), dense(one).to(dtype))
    assert torch.equal(lookup(torch.tensor([3, 5]), one), dense(one)[[3, 5]].to(dtype))


def test_what_counts_operations_sees_them():
    one, x = block("Q8_0", 5, 2), torch.randn(2, 64)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        linear(x, one)
    assert counter.get_total_flops() == 2 * 2 * 5 * 64


def test_shapes_that_disagree_raise():
    one = block("Q4_0", 7, 3)
    with torch.no_grad():
        for width in (48, 95, 192):
            with pytest.raises(RuntimeError):
                linear(torch.randn(1, width), one)


# -------------------------------------------------------------------------------------------------- parts, moving


@pytest.mark.parametrize("threads", [1, 2])
def test_rows_by_number(packed, threads):
    ids = torch.tensor([[4, 0], [8, 4]])
    assert torch.equal(bits(lookup(ids, packed)), bits(dense(packed)[ids]))
    assert lookup(torch.zeros(0, dtype=torch.int64), packed).shape == (0, packed.shape[1])
    for wrong in (-1, len(packed)):
        with pytest.raises(IndexError):
            lookup(torch.tensor([0, wrong]), packed)


def test_rows_are_cut_anywhere(packed):
    whole = dense(packed)
    for start, stop in ((0, 3), (2, 5), (len(packed) - 4, len(packed))):
        part = packed.cut(start, stop)
        assert part.shape == (stop - start, packed.shape[1])
        assert part.codes.untyped_storage().data_ptr() == packed.codes.untyped_storage().data_ptr()
        assert torch.equal(bits(part.rows(0, stop - start)), bits(whole[start:stop]))
        again = part.cut(1, 3).copy("cpu")
        assert torch.equal(bits(again.rows(0, 2)), bits(whole[start + 1 : start + 3]))
        assert again.codes.untyped_storage().data_ptr() != packed.codes.untyped_storage().data_ptr()


def test_tiles_are_cut_across():
    one = fp8(300, 40, (128, 128))
    for start, stop in ((100, 140), (127, 129), (130, 300), (256, 257)):
        part = one.cut(start, stop)
        assert torch.equal(bits(part.rows(0, stop - start)), bits(dense(one)[start:stop]))
        with torch.no_grad():
            y = linear(torch.eye(40)[:3], part)
        assert torch.equal(y, dense(one)[start:stop, :3].T)


def test_stacks(packed):
    others = [packed, packed.cut(0, len(packed)).copy("cpu"), packed]
    others[1].codes[0, 0] ^= 1
    stack = stacked(others)
    assert stack.shape == (3, *packed.shape)
    assert stack.nbytes == 3 * packed.nbytes
    for e, one in enumerate(others):
        assert stack[e].codes.data_ptr() == stack.codes[e].data_ptr()  # a view
        assert torch.equal(bits(stack[e].rows(0, len(one))), bits(dense(one)))
        assert torch.equal(bits(stack.dense()[e]), bits(dense(one)))
        assert torch.equal(bits(stack.cut(2, 6)[e].rows(0, 4)), bits(dense(one)[2:6]))
    if stack.format in BLOCKS.values() or stack.format.rows == 1:
        assert torch.equal(bits(stack.cut(1, len(packed), 2)[1].rows(0, 3)), bits(dense(others[1])[1:7:2]))


def test_it_is_copied_saved_and_restored(packed):
    other = copy.deepcopy(packed)
    assert other.codes.data_ptr() != packed.codes.data_ptr()
    state = packed.state_dict()
    assert {part.dtype for part in state.values()} == {torch.uint8}
    assert sum(part.nbytes for part in state.values()) == packed.nbytes
    other.codes.zero_()
    other.load_state_dict(state)
    assert torch.equal(bits(other.rows(0, len(other))), bits(dense(packed)))
    half = other.half().to("cpu")
    assert half.dtype == torch.float16
    assert torch.equal(bits(half.rows(0, len(half))), bits(dense(packed)))
    moved = other.to("meta")
    assert moved.device.type == "meta"
