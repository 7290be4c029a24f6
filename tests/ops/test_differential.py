"""Differential attention: the fast version against its twin, and what it says where both maps agree."""

from __future__ import annotations

import pytest
import torch

from lamina.ops import attention
from lamina.ops.attention import Reach, attend
from lamina.ops.differential import attend_differential, attend_differential_reference

B, H, G, K, V, T, S = 3, 6, 2, 5, 11, 7, 13
REACHES = {
    "prefill": (Reach(torch.arange(T)[None], torch.arange(T)[None], square=True), T),
    "after-others": (Reach(torch.arange(S - T, S)[None], torch.arange(S)[None]), S),
    "ragged": (Reach(torch.tensor([[3], [5], [0]]) + torch.arange(T), torch.arange(S)[None]), S),
}


def given(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", REACHES)
@pytest.mark.parametrize("at_once", [512, 3])
def test_it_equals_its_twin(name, at_once, monkeypatch):
    """Values and gradients, that of the share too."""
    monkeypatch.setattr(attention, "QUERIES", at_once)
    reach, held = REACHES[name]
    shapes = (B, 2 * H, T, K), (B, 2 * G, held, K), (B, G, held, V), ()
    fast, slow = ([given(*shape, seed=i).requires_grad_() for i, shape in enumerate(shapes)] for _ in range(2))
    outs = []
    for how, (q, k, v, share) in ((attend_differential, fast), (attend_differential_reference, slow)):
        outs.append(how(q, k, v, reach, 0.6, share))
    assert outs[0].shape == (B, H, T, V)
    torch.testing.assert_close(*outs, rtol=0, atol=1e-12)
    weight = given(*outs[0].shape, seed=7)
    for out in outs:
        (out * weight).sum().backward()
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-12)
        assert float(b.grad.abs().max()) > 0.01


def test_maps_that_agree_leave_a_part_of_plain_attention():
    reach, held = REACHES["prefill"]
    q, k, v = given(B, H, T, K, seed=0), given(B, G, held, K, seed=1), given(B, G, held, V, seed=2)
    both = attend_differential(torch.cat([q, q], 1), torch.cat([k, k], 1), v, reach, 0.6, torch.tensor(0.3))
    torch.testing.assert_close(both, 0.7 * attend(q, k, v, reach, 0.6), rtol=0, atol=1e-7)
