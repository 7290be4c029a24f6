"""Attention of many heads to shared rows, against the obvious twin: one row, head and query at a time."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lamina.ops import latent
from lamina.ops.attention import Reach, attend, attend_reference
from lamina.ops.latent import attend_latent

B, H, RANK, DIM = 3, 7, 37, 43


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def everything(held: int) -> Reach:
    return Reach(torch.tensor([[held]]), torch.arange(held)[None], everything=True)


def shared_rows(held: int, dim: int = DIM) -> torch.Tensor:
    """A part of a cache that is larger, and holds NaN beyond what is held."""
    cache = normal(B, held + 5, dim, seed=1)
    cache[:, held:] = float("nan")
    return cache[:, :held]


def twin(q, rows, rank, *more, **fields):
    keys = rows[:, None].double()
    return attend_reference(q.double(), keys, keys[..., :rank], *more, **fields)


def close(got: torch.Tensor, exact: torch.Tensor, tolerance: float = 3e-6) -> bool:
    assert got.shape == exact.shape
    return float(((got.double() - exact).abs().max() / exact.abs().max()).detach()) <= tolerance


@pytest.mark.parametrize("held", [1, 3, 31, 32, 33, 100])
@pytest.mark.parametrize("heads", [1, 3, 5, 16])
@torch.no_grad()
def test_one_query(calls, threads, held, heads):
    q, rows = normal(B, heads, 1, DIM), shared_rows(held)
    got = attend_latent(q, rows, RANK, everything(held), 0.3)
    assert len(calls) == 1
    assert close(got, twin(q, rows, RANK, everything(held), 0.3))


@pytest.mark.parametrize(("dim", "rank"), [(9, 9), (8, 5), (72, 64), (33, 1)])
@torch.no_grad()
def test_one_query_of_other_sizes(calls, dim, rank):
    q, rows = normal(B, H, 1, dim), shared_rows(50, dim)
    got = attend_latent(q, rows, rank, everything(50), 0.3)
    assert len(calls) == 1
    assert close(got, twin(q, rows, rank, everything(50), 0.3))


@torch.no_grad()
def test_queries_that_lie_otherwise(calls):
    q, rows = normal(H, B, 1, DIM).transpose(0, 1), shared_rows(40)
    assert not q.is_contiguous()
    assert close(attend_latent(q, rows, RANK, everything(40), 0.3), twin(q, rows, RANK, everything(40), 0.3))
    assert len(calls) == 1


@pytest.mark.parametrize("size", [1e4, -1e4, 1e30], ids=str)
@torch.no_grad()
def test_large_scores(calls, size):
    """One row wins, or all are alike."""
    q, rows = torch.ones(1, H, 1, DIM), torch.zeros(1, 70, DIM)
    rows[0, 50, 0] = abs(size)
    got = attend_latent(q, rows, RANK, everything(70), 1.0)
    assert torch.equal(got, rows[:, None, 50:51, :RANK].expand(1, H, 1, RANK))
    alike = attend_latent(q, torch.full_like(rows, size), RANK, everything(70), 1.0)
    assert close(alike / size, torch.ones(1, H, 1, RANK, dtype=torch.float64))
    assert len(calls) == 2


@pytest.mark.parametrize("scores", [1 << 24, 100])
@torch.no_grad()
def test_several_queries_that_see_different_rows(monkeypatch, calls, scores):
    """Also when only some of the scores are held at once."""
    monkeypatch.setattr(latent, "SCORES", scores)
    q, rows, factor = normal(B, H, 5, DIM), shared_rows(19).nan_to_num(), normal(B, 1, 5, 1, seed=3)
    reach = Reach(torch.tensor([[14], [3], [8]]) + torch.arange(5), torch.arange(19)[None])
    for fields in ({}, {"sinks": normal(H, seed=2)}, {"factor": factor}, {"factor": factor, "sinks": normal(H)}):
        got = attend_latent(q, rows, RANK, reach, 0.3, **fields)
        assert close(got, twin(q, rows, RANK, reach, 0.3, **fields))
    assert not calls


@torch.no_grad()
def test_what_is_left_to_torch(calls):
    q, rows = normal(B, H, 1, DIM), shared_rows(20)
    reach = everything(20)
    sinks = normal(H, seed=2)
    assert close(attend_latent(q, rows, RANK, reach, 0.3, sinks), twin(q, rows, RANK, reach, 0.3, sinks=sinks))
    apart = rows.mT.contiguous().mT
    assert close(attend_latent(q, apart, RANK, reach, 0.3), twin(q, rows, RANK, reach, 0.3))
    wide = q.double(), rows.double()
    assert close(attend_latent(*wide, RANK, reach, 0.3), twin(*wide, RANK, reach, 0.3), 1e-12)
    low = q.bfloat16(), rows.bfloat16()
    assert close(attend_latent(*low, RANK, reach, 0.3), twin(*low, RANK, reach, 0.3), 2e-2)
    assert not calls


def test_gradients_are_those_of_the_twin(calls):
    q, rows = (x.double().requires_grad_() for x in (normal(2, 3, 1, 9), normal(2, 6, 9, seed=1)))
    torch.autograd.gradcheck(lambda q, rows: attend_latent(q, rows, 7, everything(6), 0.3), (q, rows))
    grads = torch.autograd.grad(attend_latent(q, rows, 7, everything(6), 0.3).square().sum(), (q, rows))
    keys = rows[:, None]
    scores = (q @ keys.mT * 0.3).softmax(-1)
    exact = torch.autograd.grad((scores @ keys[..., :7]).square().sum(), (q, rows))
    assert all(close(a, b, 1e-12) for a, b in zip(grads, exact, strict=True))
    assert not calls


@pytest.mark.parametrize(("keys", "values"), [(12, 7), (7, 12)])
@pytest.mark.parametrize("square", [True, False])
def test_expanded_values_of_another_width(keys, values, square):
    """Padded to one width on a CPU, where the kernel that does not hold all scores asks for that."""
    q, k, v = (normal(2, H, 9, n, seed=n).requires_grad_() for n in (keys, keys, values))
    reach = Reach(torch.arange(9)[None], torch.arange(9)[None], square=square)
    got, exact = attend(q, k, v, reach, 0.3), attend_reference(q.double(), k.double(), v.double(), reach, 0.3)
    assert close(got, exact)
    grads = torch.autograd.grad(got.square().sum(), (q, k, v))
    assert all(close(a, b) for a, b in zip(grads, torch.autograd.grad(exact.square().sum(), (q, k, v)), strict=True))
    with FlopCounterMode(display=False) as counter:
        attend(q, k, v, reach, 0.3)
    assert counter.get_total_flops() == 2 * 2 * H * 9 * 9 * (keys + values)
