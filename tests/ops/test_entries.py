"""Entries of runs of tokens, and attention to them, against their obvious twins."""

from __future__ import annotations

import pytest
import torch

from lamina.ops.attention import Reach
from lamina.ops.choosing import best
from lamina.ops.entries import attend_entries, attend_entries_reference
from lamina.ops.pooling import empty, runs_pooled, runs_pooled_reference
from lamina.ops.streams import doubly_stochastic, doubly_stochastic_reference

B, T, H, K, E, TOP, WINDOW, STRIDE = 2, 11, 5, 7, 6, 3, 4, 3


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("series", [1, 2])
@pytest.mark.parametrize("pieces", [[17], [5, 12], [1] * 17])
def test_runs_that_are_gone_on_with(series: int, pieces: list[int]) -> None:
    """Whole entries are those of the twin, however the tokens come; logits far apart lose nothing."""
    values, logits = noise(B, 17, series * K).float(), 40 * noise(B, 17, series * K, seed=1).float()
    expected = runs_pooled_reference(values.double(), logits.double(), STRIDE, series)
    before, found, start = empty(B, series, K), [], 0
    for n in pieces:
        first, end = start // STRIDE, (start + n) // STRIDE
        runs = -(-(start % STRIDE + n) // STRIDE)
        held = torch.zeros(B, runs * STRIDE, series * K)
        weighed = torch.full_like(held, -torch.inf)
        places = slice(start - first * STRIDE, start - first * STRIDE + n)
        held[:, places], weighed[:, places] = values[:, start : start + n], logits[:, start : start + n]
        made = runs_pooled(held.unflatten(1, (runs, STRIDE)), weighed.unflatten(1, (runs, STRIDE)), before)
        found.append(made[2, :, : end - first] / made[1, :, : end - first])
        before, start = made[:, :, end - first : end - first + series], start + n
    torch.testing.assert_close(torch.cat(found, 1).double(), expected, rtol=1e-5, atol=1e-5)


def test_gradients_of_runs() -> None:
    """Those of a softmax over two runs; a token that is left out has none."""
    values, logits = noise(B, 2, STRIDE, 2 * K).requires_grad_(), noise(B, 2, STRIDE, 2 * K, seed=1)
    logits[:, 1, 2] = -torch.inf
    logits.requires_grad_()
    made = runs_pooled(values, logits, empty(B, 2, K))
    (made[2] / made[1])[:, 1].square().sum().backward()
    other, again = values.detach().clone().requires_grad_(), logits.detach().clone().requires_grad_()
    content = torch.cat([other[:, 0, :, :K], other[:, 1, :, K:]], 1)
    weights = torch.cat([again[:, 0, :, :K], again[:, 1, :, K:]], 1).softmax(1)
    (weights * content).sum(1).square().sum().backward()
    torch.testing.assert_close(values.grad, other.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits.grad, again.grad, rtol=1e-4, atol=1e-5)
    assert logits.grad is not None
    assert (logits.grad[:, 1, 2] == 0).all()


@pytest.mark.parametrize("picked", [None, TOP])
@pytest.mark.parametrize("tokens", [T, 2, 1])
def test_attention_to_entries(picked: int | None, tokens: int) -> None:
    """Few queries read only what was chosen for them; many read all, and leave the rest out."""
    q = noise(B, H, T, K)[:, :, -tokens:].requires_grad_()
    keys, entries = noise(B, T, K, seed=1).requires_grad_(), noise(B, E, K, seed=2).requires_grad_()
    sinks, positions = noise(H, seed=3), torch.arange(T)[None]
    reach = Reach(positions[:, -tokens:], positions, window=WINDOW)
    seen = (positions[:, -tokens:] + 1) // 2
    chosen = None
    if picked:
        chosen = best(noise(B, tokens, E, seed=4).masked_fill(torch.arange(E) >= seen[..., None], -torch.inf), picked)
    args = q, keys, reach, entries, seen, chosen, sinks, 0.3
    found, expected = attend_entries(*args), attend_entries_reference(*args)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    given = noise(*found.shape, seed=5)
    for a, b in zip(
        torch.autograd.grad((found * given).sum(), (q, keys, entries)),
        torch.autograd.grad((expected * given).sum(), (q, keys, entries)),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_what_was_not_chosen_is_not_read() -> None:
    """One more token: entries that were not chosen may hold anything."""
    q, keys, entries = noise(B, H, 1, K), noise(B, WINDOW, K, seed=1), noise(B, 40, K, seed=2)
    chosen = torch.tensor([[[3, 17, 8]], [[0, 39, 21]]])
    rows = torch.arange(B)[:, None]
    poisoned = torch.full_like(entries, float("nan"))
    poisoned[rows, chosen[:, 0]] = entries[rows, chosen[:, 0]]
    reach, seen, sinks = Reach(everything=True), torch.tensor([[40]]), noise(H, seed=3)
    clean = attend_entries(q, keys, reach, entries, seen, chosen, sinks, 0.3)
    assert torch.equal(attend_entries(q, keys, reach, poisoned, seen, chosen, sinks, 0.3), clean)


def test_doubly_stochastic() -> None:
    logits = noise(B, 5, 4, 4)
    for iterations in (1, 2, 20):
        found = doubly_stochastic(logits, iterations, 1e-3)
        torch.testing.assert_close(found, doubly_stochastic_reference(logits, iterations, 1e-3))
    many = doubly_stochastic(logits, 200, 0.0)
    for dim in (-1, -2):
        torch.testing.assert_close(many.sum(dim), torch.ones(B, 5, 4, dtype=torch.float64))
