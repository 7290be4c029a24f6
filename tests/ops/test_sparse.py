"""Choosing keys and attending to those chosen, against their obvious twins; and that no more is held than promised."""

from __future__ import annotations

import pytest
import torch

from lamina.ops import choosing, sparse
from lamina.ops.attention import Reach
from lamina.ops.choosing import (
    best,
    choose_blocks,
    choose_blocks_reference,
    choose_runs,
    choose_runs_reference,
)
from lamina.ops.sparse import Choice, attend_chosen, attend_sparse, attend_sparse_reference

B, T, J, K, V, S = 2, 5, 7, 11, 3, 29
ROWS = torch.tensor([[24], [15]]) + torch.arange(T)  # rows at positions of their own
ALIKE = torch.tensor([[24]]) + torch.arange(T)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture(params=[1 << 25, 1], ids=["whole", "pieces"])
def budget(request, monkeypatch):
    """With a budget of one byte, one query at a time."""
    monkeypatch.setattr(choosing, "BUDGET", request.param)
    monkeypatch.setattr(sparse, "BUDGET", request.param)


def test_best_takes_the_first_of_equal_ones_and_none_of_what_is_not_seen():
    inf = float("inf")
    scores = torch.tensor([[1.0, 3, 0, 3, 3, -1], [0, 0, 0, 0, 0, 0], [-inf, 5, -inf, inf, -inf, -inf]])
    assert best(scores, 3).tolist() == [[1, 3, 4], [0, 1, 2], [-1, 1, 3]]
    assert best(scores, 2).tolist() == [[1, 3], [0, 1], [1, 3]]
    assert best(scores[:1], 8).tolist() == [[0, 1, 2, 3, 4, 5, -1, -1]]
    assert best(torch.full((1, 3), float("nan")), 2).tolist() == [[-1, -1]]
    assert best(torch.empty(2, 0), 2).tolist() == [[-1, -1]] * 2
    level = torch.randn(50, 400).round()  # many equal ones
    expected = [sorted(sorted(range(400), key=lambda i, row=row: (-row[i], i))[:37]) for row in level.tolist()]
    assert best(level, 37).tolist() == expected


@pytest.mark.parametrize("positions", [ROWS, ALIKE], ids=["rows", "alike"])
@pytest.mark.parametrize(("size", "top_k"), [(1, 6), (4, 3), (4, 9)])
@pytest.mark.parametrize("weighed", [True, False])
def test_runs_are_those_of_the_twin(budget, positions, size, top_k, weighed):
    q, k = torch.randn(B, T, 13, J), torch.randn(B, S // size, J)
    weights = torch.randn(B, T, 13) if weighed else None
    got = choose_runs(q, k, weights, positions, top_k, size)
    expected = choose_runs_reference(q, k, weights, positions, top_k, size)
    assert got.shape == (B, 1, T, top_k)
    assert ordered(got) == ordered(expected)


@pytest.mark.parametrize("positions", [ROWS, ALIKE], ids=["rows", "alike"])
@pytest.mark.parametrize(("size", "top_k", "local"), [(4, 3, 1), (4, 3, 2), (3, 4, 0), (5, 9, 1)])
def test_blocks_are_those_of_the_twin(budget, positions, size, top_k, local):
    q, k = torch.randn(B, T, 3, J), torch.randn(B, S, J)
    got = choose_blocks(q, k, positions, top_k, size, local)
    assert got.shape == (B, 3, T, top_k)
    assert ordered(got) == ordered(choose_blocks_reference(q, k, positions, top_k, size, local))


def ordered(runs: torch.Tensor) -> list[list[int]]:
    """Of each query, wherever those stand that are none."""
    return [sorted(row) for row in runs.flatten(0, -2).tolist()]


CHOICES = {
    "tokens": (1, 1, False),
    "heads choose": (3, 1, False),
    "blocks": (2, 4, False),
    "pools and a tail": (1, 4, True),
}


def chosen(kind: str, dense: int, positions: torch.Tensor) -> Choice:
    shares, size, tail = CHOICES[kind]
    later = positions[:, dense:]
    runs = torch.full((B, shares, T - dense, 3), -1, dtype=torch.int32)
    for place in torch.cartesian_prod(*map(torch.arange, runs.shape[:3])).tolist():
        last = int(later[place[0] % len(later), place[2]])
        whole = (last + 1) // size if tail else last // size + 1
        held = min(whole, 2 + place[2] % 2)  # one is none in every other query
        runs[tuple(place)][:held] = torch.randperm(whole)[:held].sort().values.int()
    return Choice(dense, runs, later, size, tail)


@pytest.mark.parametrize("kind", CHOICES)
@pytest.mark.parametrize("dense", [0, 2, T])
@pytest.mark.parametrize("extra", [False, True], ids=["plain", "more"])
def test_attention_is_that_of_the_twin(budget, kind, dense, extra):
    positions = ALIKE if dense else ROWS
    q, k, v = torch.randn(B, 6, T, K), torch.randn(B, 2, S, K), torch.randn(B, 2, S, V)
    parts = [x.requires_grad_() for x in (q, k, v)]
    more = (1.3, torch.randn(6, requires_grad=True), torch.rand(len(positions), 1, T, 1) + 0.5) if extra else ()
    choice, reach = chosen(kind, dense, positions), Reach(positions, torch.arange(S)[None])
    got = attend_sparse(q, k, v, reach, choice, 0.4, *more)
    expected = attend_sparse_reference(q, k, v, positions, choice, 0.4, *more)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    gradient = torch.randn_like(got)
    for a, b in zip(
        torch.autograd.grad(got, parts, gradient, retain_graph=True),
        torch.autograd.grad(expected, parts, gradient),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_key_holds_its_value(budget):
    choice = chosen("tokens", 0, ROWS)
    q, k = torch.randn(B, 6, T, K), torch.randn(B, 1, S, K)
    given = attend_chosen(q, k, V, choice, 0.4)
    torch.testing.assert_close(given, attend_chosen(q, k, k[..., :V], choice, 0.4))


def test_keys_that_are_not_chosen_are_not_read():
    choice = chosen("tokens", 0, ALIKE)
    q, k, v = torch.randn(B, 6, T, K), torch.full((B, 2, S, K), float("nan")), torch.full((B, 2, S, V), float("nan"))
    for b in range(B):
        places = choice.runs[b].flatten().long().clamp(min=0)
        k[b, :, places], v[b, :, places] = 1.0, 2.0
    k[:, :, 0], v[:, :, 0] = 1.0, 2.0  # fetched in place of none
    torch.testing.assert_close(attend_chosen(q, k, v, choice, 0.4), torch.full((B, 6, T, V), 2.0))


def test_what_is_held_does_not_grow_with_the_prompt(monkeypatch):
    """The largest tensor that choosing and attending make, besides what is given and returned."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        held = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and func is not torch.ops.aten.cat.default:
                self.held = max(self.held, out.untyped_storage().nbytes())
            return out

    monkeypatch.setattr(choosing, "BUDGET", 1 << 20)
    monkeypatch.setattr(sparse, "BUDGET", 1 << 20)
    for tokens in (600, 1200):
        q, k, w = torch.randn(1, tokens, 8, 16), torch.randn(1, tokens, 16), torch.randn(1, tokens, 8)
        rows, positions = torch.randn(1, 1, tokens, 40), torch.arange(tokens)[None]
        with Largest() as largest:
            runs = choose_runs(q[:, 50:], k, w[:, 50:], positions[:, 50:], 50)
            attend_chosen(torch.randn(1, 2, tokens - 50, 40), rows, 32, Choice(50, runs, positions[:, 50:]), 0.1)
        assert largest.held <= 1 << 20
