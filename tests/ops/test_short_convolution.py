"""The short convolution, in torch and in C, against its twin."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lamina.ops.short_convolution import short_convolution, short_convolution_reference


def made(rows=2, tokens=13, channels=37, taps=4):
    """x, the inputs before it, weight and bias, in float64."""
    random = torch.Generator().manual_seed(0)
    shapes = (rows, tokens, channels), (rows, channels, taps - 1), (channels, 1, taps), (channels,)
    return [torch.randn(shape, generator=random, dtype=torch.float64) for shape in shapes]


def single(arguments):
    return [x.float() for x in arguments]


def close(got, exact, tolerance=1e-6) -> bool:
    assert got.shape == exact.shape
    return float((got.detach().double() - exact).abs().max()) <= tolerance * float(exact.abs().max())


@pytest.mark.parametrize("channels", [1, 7, 8, 37, 512, 515, 1100])
@pytest.mark.parametrize("tokens", [1, 2, 13])
@pytest.mark.parametrize("taps", [1, 2, 4, 7])
@torch.no_grad()
def test_native(calls, threads, taps, tokens, channels):
    """And torch's: the same by another way."""
    x, before, weight, bias = made(2, tokens, channels, taps)
    for silu in (False, True):
        for added in (bias, None):
            exact = short_convolution_reference(x, before, weight, added, silu)
            rest = None if added is None else added.float()
            assert close(short_convolution(x.float(), before.float(), weight.float(), rest, silu), exact)
            assert close(short_convolution(x, before, weight, added, silu), exact, 1e-12)
    assert len(calls) == 4


@torch.no_grad()
def test_native_reads_rows_where_they_lie(calls):
    """Part of a projection, rows of a larger batch, a tail that is a part too; what lies beside is NaN."""
    x, before, weight, bias = made()
    wide = torch.full((4, 20, 90), float("nan"))
    inside = wide[1:3, 3:16, 50:87]
    inside.copy_(x)
    tail = torch.full((2, 37, 5), float("nan"))[:, :, 1:4].copy_(before)
    exact = short_convolution_reference(x, before, weight, bias, True)
    assert close(short_convolution(inside, tail, *single([weight, bias]), silu=True), exact)
    assert len(calls) == 1


@pytest.mark.parametrize("size", [20.0, 1e3, 1e30], ids=str)
@torch.no_grad()
def test_silu_of_all_sizes(calls, size):
    x, before, weight, bias = made()
    exact = short_convolution_reference(size * x, size * before, weight, bias, True)
    assert close(short_convolution(*single([size * x, size * before, weight, bias]), silu=True), exact)
    assert len(calls) == 1


def test_native_is_for_float32_values_only(calls):
    x, before, weight, bias = made()
    exact = short_convolution_reference(x, before, weight, bias, True)
    with torch.no_grad():
        assert close(short_convolution(x, before, weight, bias, True), exact, 1e-12)
        assert close(
            short_convolution(x.bfloat16(), *(p.bfloat16() for p in (before, weight, bias)), silu=True), exact, 3e-2
        )
        columns = x.float().mT.contiguous().mT
        assert close(short_convolution(columns, *single([before, weight, bias]), silu=True), exact)
        with FlopCounterMode(display=False) as counter:
            short_convolution(*single([x, before, weight, bias]), silu=True)
        assert counter.get_total_flops() == 2 * 4 * x.numel()
        with pytest.raises(RuntimeError):  # a tail that is too short is not read past its end
            short_convolution(*single([x, before[:1], weight, bias]), True)
    wanted = [p.requires_grad_() for p in single([x, before, weight, bias])]
    grads = torch.autograd.grad(short_convolution(*wanted, silu=True).sin().sum(), wanted)
    leaves = [p.requires_grad_() for p in (x, before, weight, bias)]
    expected = torch.autograd.grad(short_convolution_reference(*leaves, silu=True).sin().sum(), leaves)
    assert all(close(a, b, 1e-5) for a, b in zip(grads, expected, strict=True))
    assert not calls
