"""What is RG-LRU's own: rows that begin a text, and the slope of a root near zero. The rest: test_recurrences.py."""

from __future__ import annotations

import torch

from lamina.ops.rg_lru import STEEP, rg_lru, rg_lru_reference


def test_the_first_token_of_a_text_is_not_scaled():
    random = torch.Generator().manual_seed(0)
    x, g = (torch.randn(3, 2, 11, 5, generator=random, dtype=torch.float64) for _ in range(2))
    g, state = -g.abs(), torch.randn(3, 2, 5, generator=random, dtype=torch.float64)
    first = torch.tensor([True, False, True])
    state[first] = 0.0
    out, after = rg_lru(x, g, state, first=first)
    expected, last = rg_lru_reference(x, g, state, first=first)
    assert torch.allclose(out, expected, rtol=1e-12)
    assert torch.allclose(after, last, rtol=1e-12)
    assert torch.equal(out[first, :, 0], x[first, :, 0])
    assert not torch.allclose(out[1, :, 0], x[1, :, 0] + g[1, :, 0].exp() * state[1])


def test_hardly_any_decay_has_a_slope():
    """1 - a^2 is computed so that it does not round to zero, and where it is zero the gradient is finite."""
    g = torch.tensor([-1e-9, 0.0]).view(1, 1, 1, 2).requires_grad_()
    x = torch.ones(1, 1, 1, 2, requires_grad=True)
    out, _ = rg_lru(x, g)
    assert torch.allclose(out, torch.tensor([(2e-9) ** 0.5, 0.0]), rtol=1e-5)
    out.sum().backward()
    assert g.grad is not None
    assert torch.allclose(g.grad, torch.tensor(-2.0 * STEEP))
