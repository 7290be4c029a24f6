"""Experts chosen one by one (SparseMixer), against plain arithmetic on one token at a time."""

from __future__ import annotations

import math

import torch

from lamina.arch import Router
from lamina.ops.routing import mixed


def by_hand(logits: list[float], active: int, jitter: float) -> list[tuple[int, float]]:
    """The chosen experts and their weights, in order: arXiv 2409.12136, without noise."""
    left, out = dict(enumerate(logits)), []
    for _ in range(active):
        best = max(left, key=lambda e: left[e])
        near = [l for l in left.values() if (left[best] - l) / max(abs(l), left[best]) <= 2 * jitter]
        out.append((best, 1 / sum(math.exp(l - left[best]) for l in near)))
        del left[best]
    return out


def test_each_of_several_choices_is_weighed_among_those_left():
    random = torch.Generator().manual_seed(2)
    for experts, active, jitter in ((7, 2, 0.01), (7, 2, 0.23), (5, 3, 0.4), (3, 3, 0.9)):
        router = Router(experts=experts, active=active, normalise=False, sparse_mixer=jitter)
        logits = 2 * torch.randn(23, experts, generator=random)
        logits[::4] -= 5.0  # all below zero, where the best is not the largest by size
        chosen, weights = mixed(logits, router)
        several = 0
        for token in range(len(logits)):
            expected = by_hand(logits[token].double().tolist(), active, jitter)
            assert chosen[token].tolist() == [expert for expert, _ in expected]
            assert torch.allclose(weights[token].double(), torch.tensor([w for _, w in expected]).double(), atol=1e-6)
            several += any(weight < 1 for _, weight in expected)
        assert several or jitter < 0.1
