"""The delta rule with a vector of decays: against the reference library, behind strong decays, and what it costs."""

from __future__ import annotations

import pytest
import torch
from transformers.models.kimi_linear.modeling_kimi_linear import chunk_kimi_delta_attention

from lamina.arch import KimiDeltaAttention
from lamina.arch.measure import matrices
from lamina.errors import LaminaError
from lamina.ops.vector_delta_rule import vector_delta_rule, vector_delta_rule_reference
from tests.arch.test_cost import Counted

B, H, K, V = 2, 3, 5, 7


def made(tokens: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    sizes = (K,), (K,), (V,), (K,), ()
    q, k, v, g, b = (torch.randn(B, H, tokens, *size, generator=random, dtype=dtype) for size in sizes)
    return [q, k, v, -g.abs(), b.sigmoid()]


@pytest.mark.parametrize("tokens", [1, 64, 131])
def test_the_reference_library(tokens):
    """Which computes each pair of tokens on its own, in float32."""
    q, k, v, g, b = made(tokens, dtype=torch.float32)
    state = torch.randn(B, H, K, V, generator=torch.Generator().manual_seed(1))
    theirs = (x.transpose(1, 2) for x in (q, k, v, g, b))
    options = {"initial_state": state, "output_final_state": True, "use_qk_l2norm_in_kernel": True}
    expected, after = chunk_kimi_delta_attention(*theirs, **options)
    out, last = vector_delta_rule(q, k, v, g, b, state)
    assert torch.allclose(out, expected.transpose(1, 2), rtol=1e-5, atol=1e-5)
    assert torch.allclose(last, after, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("strength", [-50.0, -1e4, -1e30])
def test_weak_decays_behind_strong_ones(strength):
    """As exact as without: a difference of sums of logarithms would lose them, in the values and in the gradients."""
    given = made(90)
    given[3] *= 0.01
    given[3][:, :, 9] = strength
    given[3][:, 1, 40:43, 2] = strength
    leaves, single = ([x.to(t).requires_grad_() for x in given] for t in (torch.float64, torch.float32))
    exact, got = vector_delta_rule_reference(*leaves), vector_delta_rule(*single)
    gradients = [
        torch.autograd.grad(out.square().sum() + last.sum(), xs) for (out, last), xs in ((exact, leaves), (got, single))
    ]
    for right, found in zip((*exact, *gradients[0]), (*got, *gradients[1]), strict=True):
        assert float((found - right).detach().abs().max() / right.detach().abs().max()) <= 3e-6


@pytest.mark.parametrize("tokens", [1, 2, 3, 23, 63, 64, 65, 66, 131])
def test_flops(tokens, monkeypatch):
    """The value's formula without projections, exactly, at any length."""
    op = KimiDeltaAttention(heads=H, key_dim=K, value_dim=V, convolution=1, decay_rank=2, gate_rank=2)
    beside = 2 * matrices(op.weights(11)) + 2 * op.channels
    counted = Counted(monkeypatch)
    got = counted(lambda: vector_delta_rule(*made(tokens)))
    assert got == B * (op.flops(11, tokens, 0) - tokens * beside)


def test_decays_of_another_size():
    q, k, v, g, b = made(4)
    for other in (g[..., :3], g[..., 0], g[:, :2]):
        with pytest.raises(LaminaError, match="do not fit"):
            vector_delta_rule(q, k, v, other, b)
