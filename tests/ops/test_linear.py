"""The one-token projection against torch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lamina.ops.linear import linear, neighbours

SIZES = [(1, 1), (7, 3), (30, 11), (6, 5), (60, 257), (1, 13), (97, 64)]
"""Outputs, inputs: some outputs divide among the threads, some do not."""


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1)], ids=str)
def test_one_token(threads, size, shape, bias):
    outputs, inputs = size
    random = torch.Generator().manual_seed(outputs)
    weight = torch.randn(outputs, inputs, generator=random)
    added = torch.randn(outputs, generator=random) if bias else None
    x = torch.randn(*shape, inputs, generator=random)
    with torch.inference_mode():
        got, expected = linear(x, weight, added), F.linear(x, weight, added)
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_types_and_several_tokens(threads, dtype):
    weight, x = torch.randn(30, 7, dtype=dtype), torch.randn(3, 5, 7, dtype=dtype)
    with torch.no_grad():
        assert torch.equal(linear(x, weight), F.linear(x, weight))
        assert torch.equal(linear(x[:1, :1], weight), F.linear(x[:1, :1], weight))


def test_no_tokens_at_all(threads):
    with torch.no_grad():
        assert linear(torch.empty(0, 7), torch.randn(30, 7)).shape == (0, 30)


def test_a_weight_that_is_a_slice_of_another(threads):
    """Fused projections are loaded as slices of one matrix, and a tied head reads the first rows of a table."""
    fused = torch.randn(90, 11)
    x = torch.randn(1, 1, 11)
    with torch.no_grad():
        for weight in (fused[30:60], fused[:, :].T.contiguous().T[:30], fused[::3]):
            torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=1e-6, atol=1e-5)


def test_gradients_equal_those_of_torch(threads):
    random = torch.Generator().manual_seed(1)
    values = [torch.randn(s, dtype=torch.float64, generator=random) for s in ((1, 1, 7), (30, 7), (30,))]
    ours, theirs = ([v.clone().requires_grad_() for v in values] for _ in range(2))
    target = torch.randn(30, dtype=torch.float64, generator=random)
    (linear(*ours) * target).sum().backward()
    (F.linear(*theirs) * target).sum().backward()
    for a, b in zip(ours, theirs, strict=True):
        assert a.grad is not None
        assert torch.equal(a.grad, b.grad)
    assert torch.autograd.gradcheck(linear, [v.clone().requires_grad_() for v in values])


def test_gradients_in_the_type_that_has_a_fast_path(threads):
    """With gradients enabled float32 inputs take torch's path, and every one of them gets its gradient."""
    x, weight = torch.randn(1, 6, requires_grad=True), torch.randn(30, 6, requires_grad=True)
    linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.detach().sum(0, keepdim=True), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(weight.grad, x.detach().expand(30, 6))


@pytest.mark.parametrize("shape", [(), (7,), (7, 3)], ids=str)
def test_neighbours_are_one_tensor(shape):
    """The same memory, so that what is written into the whole is read in the parts."""
    parts = torch.randn(10, *shape).split([5, 2, 3])
    whole = neighbours(parts)
    assert whole is not None
    assert torch.equal(whole, torch.cat(parts))
    whole[6] = 4.0
    assert bool((parts[1][1] == 4.0).all())
    assert torch.equal(neighbours(parts[1:]), torch.cat(parts[1:]))
    assert torch.equal(neighbours(parts[:1]), parts[0])


def test_what_does_not_lie_side_by_side_is_not_joined():
    a, b, c = torch.randn(10, 7).split([5, 2, 3])
    assert neighbours([a, c]) is None
    assert neighbours([b, a]) is None
    assert neighbours([a, a]) is None
    assert neighbours([a, torch.randn(2, 7)]) is None
    assert neighbours([a, b.view(7, 2)]) is None
    assert neighbours([a, b.view(torch.int32)]) is None
    assert neighbours(torch.randn(7, 10).T.split([5, 5])) is None
    assert neighbours([torch.empty(3, 7, device="meta"), torch.empty(2, 7, device="meta")]) is None
