"""Rotary embeddings: frequencies against the reference's, and the fast rotation against its twin."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from lamina.arch import DynamicScaling, LinearScaling, Llama3Scaling, LongRopeScaling, Rotary, YarnScaling
from lamina.ops.rotary import frequencies, rotate, rotate_reference, tables
from lamina.published import rope
from lamina.published.config import Config

HEAD, CONTEXT = 22, 160
SHORT = [1.0 + 0.1 * i for i in range(11)]
LONG = [1.5 + 0.7 * i for i in range(11)]
YARN = {"rope_type": "yarn", "factor": 5.0, "original_max_position_embeddings": 32}
LLAMA3 = {"rope_type": "llama3", "factor": 7.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}

SCALED: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "linear-part": {"rope_type": "linear", "factor": 3.0, "partial_rotary_factor": 0.64},
    "dynamic": {"rope_type": "dynamic", "factor": 4.0},
    "dynamic-part": {"rope_type": "dynamic", "factor": 2.5, "partial_rotary_factor": 0.55},
    "llama3": LLAMA3 | {"original_max_position_embeddings": 64},
    "llama3-narrow": LLAMA3 | {"original_max_position_embeddings": 40, "low_freq_factor": 2.0, "high_freq_factor": 2.5},
    "yarn": YARN,
    "yarn-exact-ends": YARN | {"truncate": False},
    "yarn-betas": YARN | {"beta_fast": 6.0, "beta_slow": 2.0, "truncate": False},
    "yarn-ends-meet": YARN | {"beta_fast": 2.0, "beta_slow": 2.0, "truncate": False},
    "yarn-mscale": YARN | {"mscale": 0.8, "mscale_all_dim": 1.3},
    "yarn-one-mscale": YARN | {"mscale": 0.8},
    "yarn-attention": YARN | {"attention_factor": 1.7, "mscale": 0.8, "mscale_all_dim": 1.3},
    "yarn-factor-below-one": YARN | {"factor": 0.5},
    "yarn-partial": YARN | {"partial_rotary_factor": 0.55},
    "longrope": {
        "rope_type": "longrope",
        "short_factor": SHORT,
        "long_factor": LONG,
        "original_max_position_embeddings": 32,
    },
    "longrope-factor": {
        "rope_type": "longrope",
        "short_factor": SHORT,
        "long_factor": LONG,
        "original_max_position_embeddings": 32,
        "factor": 3.0,
    },
    "longrope-attention": {
        "rope_type": "longrope",
        "short_factor": SHORT[:6],
        "long_factor": LONG[:6],
        "original_max_position_embeddings": 32,
        "attention_factor": 1.25,
        "partial_rotary_factor": 0.55,
    },
}
LENGTHS = (1, 31, 32, 33, 159, 160, 161, 977)
"""Around the original length (32), the stated one (160), and far beyond."""


def both(values: dict[str, Any], theta: float = 700.0) -> tuple[Any, Rotary]:
    """The reference's config and our value of the same rope_parameters."""
    values = {"rope_theta": theta} | values
    shape = {"hidden_size": 66, "num_attention_heads": 3, "head_dim": HEAD, "max_position_embeddings": CONTEXT}
    theirs = transformers.LlamaConfig(**shape, rope_parameters=dict(values))
    ours = rope.rotary(Config({}, "test"), dict(values), HEAD, CONTEXT)
    return theirs, ours


def attention_factor(rotary: Rotary) -> float:
    return rotary.scaling.attention_factor if isinstance(rotary.scaling, YarnScaling | LongRopeScaling) else 1.0


@pytest.mark.parametrize("name", SCALED)
def test_frequencies_equal_the_reference(name):
    theirs, ours = both(SCALED[name])
    compute = ROPE_INIT_FUNCTIONS[SCALED[name]["rope_type"]]
    seen = set()
    for length in LENGTHS:
        expected, factor = compute(theirs, seq_len=length)
        got = frequencies(ours, length)
        assert got.shape == (ours.dim // 2,) == expected.shape
        torch.testing.assert_close(got, expected, rtol=2e-6, atol=0)
        assert attention_factor(ours) == pytest.approx(factor, rel=1e-12)
        seen.add(tuple(got.tolist()))
    assert len(seen) == {"dynamic": 3, "longrope": 2}.get(name.split("-")[0], 1)
    plain = 700.0 ** -(torch.arange(0, ours.dim, 2) / ours.dim)
    assert name == "yarn-factor-below-one" or not torch.allclose(frequencies(ours, 977), plain)


@pytest.mark.parametrize("partial", [1.0, 0.55])
def test_plain_frequencies_equal_the_reference(partial):
    shape = {"hidden_size": 66, "num_attention_heads": 3, "pad_token_id": None}
    values = {"rope_type": "default", "rope_theta": 900.0, "partial_rotary_factor": partial}
    theirs = transformers.Phi3Config(**shape, rope_parameters=dict(values))
    expected = transformers.models.phi3.modeling_phi3.Phi3RotaryEmbedding(theirs).inv_freq
    ours = rope.rotary(Config({}, "test"), values, HEAD, CONTEXT)
    torch.testing.assert_close(frequencies(ours, 977), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("name", SCALED)
def test_written_parameters_are_read_back(name):
    _, ours = both(SCALED[name])
    again = rope.rotary(Config({}, "test"), rope.written(ours, HEAD), HEAD, CONTEXT)
    assert again == ours


def test_a_regime_is_a_set_of_frequencies():
    """Two lengths have the same regime exactly if the angles are the same."""
    rotaries = [both(values)[1] for values in SCALED.values()]
    for rotary in rotaries:
        for a in LENGTHS:
            for b in LENGTHS:
                same = torch.equal(frequencies(rotary, a), frequencies(rotary, b))
                assert same == (rotary.regime(a) == rotary.regime(b)), (rotary, a, b)
    assert sum(rotary.depends_on_length for rotary in rotaries) == 5


VALUES = [
    Rotary(base=50.0, dim=10),
    Rotary(base=50.0, dim=6),
    Rotary(base=50.0, dim=2, layout="interleaved"),
    Rotary(base=50.0, dim=10, layout="interleaved"),
    Rotary(base=50.0, dim=6, layout="interleaved"),
    Rotary(
        base=50.0,
        dim=6,
        scaling=YarnScaling(factor=3.0, original_context=16, beta_fast=4.0, attention_factor=1.3),
    ),
    Rotary(
        base=50.0,
        dim=6,
        layout="interleaved",
        scaling=LongRopeScaling(short=(1, 2, 3), long=(2, 3, 5), original_context=11, attention_factor=0.7),
    ),
    Rotary(base=50.0, dim=10, scaling=DynamicScaling(factor=2.0, original_context=11)),
    Rotary(
        base=50.0,
        dim=10,
        scaling=Llama3Scaling(factor=4.0, low_frequency=1.0, high_frequency=4.0, original_context=64),
    ),
    Rotary(base=50.0, dim=10, turning=3, scaling=LinearScaling(factor=1.5)),
    Rotary(base=50.0, dim=6, turning=2, backwards=True),
    Rotary(base=50.0, dim=10, layout="interleaved", backwards=True),
]


@pytest.mark.parametrize("rotary", VALUES, ids=lambda r: f"{r.layout}-{r.dim}-{r.scaling and r.scaling.kind}")
@pytest.mark.parametrize("length", [11, 47])
def test_fast_rotation_equals_its_twin(rotary, length):
    """Values and gradients, at positions that neither start at zero nor are evenly spaced."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(3, 5, 7, 11, dtype=torch.float64, generator=random)
    x = x[..., : 11 if rotary.dim < 10 else 10]  # part of a head, and (nearly) all of it
    weight = torch.randn(x.shape, dtype=torch.float64, generator=random)
    positions = torch.tensor([4, 5, 9, 23, 24, 40, 46])
    fast, slow = x.clone().requires_grad_(), x.clone().requires_grad_()
    cos, sin = tables(rotary, positions, length, torch.float64)
    out = rotate(fast, rotary, cos, sin)
    expected = rotate_reference(slow, rotary, positions, length)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)  # angles are float32
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(fast.grad, slow.grad, rtol=0, atol=1e-6)
    assert float((out.detach() - x).abs().max()) > 0.5  # it does turn
    assert torch.equal(out[..., rotary.dim :], x[..., rotary.dim :])


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_rotation_equals_the_reference(layout):
    """The two published ways of pairing: Llama's and Cohere's."""
    models = transformers.models
    theirs = models.llama.modeling_llama if layout == "half" else models.cohere2.modeling_cohere2
    rotary, positions = Rotary(base=70.0, dim=HEAD, layout=layout), torch.arange(3, 10)[None]
    q, k = torch.randn(3, 5, 7, HEAD), torch.randn(3, 2, 7, HEAD)
    shape = {"hidden_size": 5 * HEAD, "num_attention_heads": 5, "head_dim": HEAD}
    values = {"rope_type": "default", "rope_theta": 70.0}
    if layout == "half":
        embedding = theirs.LlamaRotaryEmbedding(transformers.LlamaConfig(**shape, rope_parameters=values))
    else:
        embedding = theirs.Cohere2RotaryEmbedding(transformers.Cohere2Config(**shape, rope_parameters=values))
    expected = theirs.apply_rotary_pos_emb(q, k, *embedding(q, positions))
    cos, sin = tables(rotary, positions[0], 0, torch.float32)
    for x, wanted in zip((q, k), expected, strict=True):
        torch.testing.assert_close(rotate(x, rotary, cos, sin), wanted, rtol=0, atol=2e-6)


def test_scores_depend_on_distance_alone():
    """The property for which rotary embeddings were made, for both layouts."""
    q, k = torch.randn(1, 1, 1, 10, dtype=torch.float64), torch.randn(1, 1, 1, 10, dtype=torch.float64)
    for layout in ("half", "interleaved"):
        rotary = Rotary(base=30.0, dim=10, layout=layout)

        def score(at_q: int, at_k: int, rotary=rotary) -> float:
            turned = [
                rotate(x, rotary, *tables(rotary, torch.tensor([p]), 0, torch.float64))
                for x, p in ((q, at_q), (k, at_k))
            ]
            return float((turned[0] * turned[1]).sum())

        assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
        assert abs(score(9, 4) - score(9, 6)) > 1e-3


def test_learned_frequencies():
    """Each is multiplied by e to the power of its number."""
    rotary, positions = Rotary(base=50.0, dim=6, learned=True), torch.tensor([0, 3, 11])
    powers = torch.tensor([0.3, -0.5, 0.0])
    cos, sin = tables(rotary, positions, 11, torch.float32, powers)
    angles = positions[:, None] * frequencies(rotary) * powers.exp()
    torch.testing.assert_close(cos[:, :3], angles.cos())
    torch.testing.assert_close(sin[:, 3:], angles.sin())
    assert torch.equal(tables(rotary, positions, 11, torch.float32)[0][:, 2], cos[:, 2])
    assert not torch.equal(tables(rotary, positions, 11, torch.float32)[0][:, 1], cos[:, 1])


def test_tables_keep_what_they_are_asked_for():
    rotary = VALUES[5]
    positions = torch.arange(15).view(3, 5)
    cos, sin = tables(rotary, positions, 0, torch.bfloat16)
    assert cos.shape == sin.shape == (3, 5, 6)
    assert cos.dtype == sin.dtype == torch.bfloat16
    assert float(cos[0, 0, 0]) == pytest.approx(1.3, rel=0.01)  # cos 0, scaled by the attention factor
    assert math.isclose(float(sin[0, 0].abs().sum()), 0.0)
