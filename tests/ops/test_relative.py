"""Scores of distances: the fast version against its twin, the reference, and within attention."""

from __future__ import annotations

import pytest
import torch
from transformers.models.inkling.modeling_inkling import InklingRelativeLogits

from lamina.ops import attention
from lamina.ops.attention import Reach, attend, attend_reference
from lamina.ops.relative import Distances

B, H, G, K, V, R, EXTENT = 3, 6, 2, 5, 11, 4, 6
POSITIONS = {
    "prefill": (torch.arange(9)[None], torch.arange(9)[None], None),
    "after-others": (torch.arange(13, 20)[None], torch.arange(20)[None], None),
    "ragged": (torch.tensor([[9], [4], [0]]) + torch.arange(7), torch.arange(16)[None], None),
    "ring": (torch.arange(13, 20)[None], torch.arange(9, 20)[None], 5),
}


def given(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", POSITIONS)
@pytest.mark.parametrize("at_once", [512, 3])
def test_attention_with_distances_equals_its_twin(name, at_once, monkeypatch):
    """Values and gradients, with sinks of each query and a factor."""
    monkeypatch.setattr(attention, "QUERIES", at_once)
    queries, keys, window = POSITIONS[name]
    reach, tokens, held = Reach(queries, keys, window=window), queries.shape[1], keys.shape[1]
    shapes = (B, H, tokens, K), (B, G, held, K), (B, G, held, V), (B, H, tokens, R), (R, EXTENT), (B, H, tokens)
    fast, slow = ([given(shape, seed).requires_grad_() for seed, shape in enumerate(shapes)] for _ in range(2))
    factor = 1.0 + given((1, 1, tokens, 1), 9).abs()
    outs = []
    for how, (q, k, v, states, vectors, sinks) in ((attend, fast), (attend_reference, slow)):
        outs.append(how(q, k, v, reach, 0.6, None, sinks, factor, Distances(states, vectors, queries, keys)))
    torch.testing.assert_close(*outs, rtol=0, atol=1e-6)  # sinks are float32
    weight = given(outs[0].shape, 7)
    for out in outs:
        (out * weight).sum().backward()
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-6)
        assert float(b.grad.abs().max()) > 0.01


def test_scores_equal_the_reference():
    states, vectors = given((B, H, 7, R), 0), given((R, EXTENT), 1)
    theirs = InklingRelativeLogits(R, EXTENT).double()
    with torch.no_grad():
        theirs.proj.copy_(vectors)
        expected = theirs(states.transpose(1, 2), torch.arange(13, 20), torch.arange(20))
    ours = Distances(states, vectors, torch.arange(13, 20)[None], torch.arange(20)[None])
    assert torch.equal(ours.scores(slice(None), slice(None)), expected)
    torch.testing.assert_close(ours.scores_reference(), expected)
    assert torch.equal(ours.scores(slice(2, 5), slice(3, 17)), expected[:, :, 2:5, 3:17])
