"""Small siblings: what is asked for is hit, and what makes an architecture what it is stays."""

from __future__ import annotations

import math

import pytest

import lamina
from lamina.arch import Attention, GatedDeltaNet, LatentAttention, MoE
from lamina.arch.block import kinds
from lamina.errors import LaminaError

LARGE_VOCABULARY = 100_000


def order(arch):
    """The kinds of blocks as they first appear: mixer, feed-forward and reach."""
    return [[(type(op), getattr(op, "window", None) is None) for op in block.ops()] for block in kinds(arch.blocks)[0]]


@pytest.mark.parametrize("name", lamina.names())
def test_every_entry_has_a_sibling(name):
    arch = lamina.architecture(name)
    target = min(300_000_000, arch.parameters().total // 2)
    small = arch.scaled(target, keep=() if arch.vocab > LARGE_VOCABULARY else ("vocab",))
    assert abs(small.parameters().total - target) <= 0.1 * target
    assert small == lamina.Architecture.from_json(small.to_json())
    before, after = ({type(op) for op in a.ops()} for a in (arch, small))
    assert before == after
    assert order(small) == order(arch)
    assert {op.gate for op in small.ops() if isinstance(op, Attention)} == {
        op.gate for op in arch.ops() if isinstance(op, Attention)
    }


def ratio(arch, kind):
    return [isinstance(op, kind) for block in arch.blocks for op in list(block.ops())[:1]]


def test_a_hybrid_keeps_three_to_one():
    small = lamina.architecture("qwen3-next-80b-a3b").scaled(1_000_000_000)
    linear = ratio(small, GatedDeltaNet)
    assert len(linear) % 4 == 0
    assert linear == [True, True, True, False] * (len(linear) // 4)
    delta = next(op for op in small.ops() if isinstance(op, GatedDeltaNet))
    assert delta.value_heads == 2 * delta.key_heads  # 32 and 16
    assert delta.convolution == 4


def test_dense_first_and_expert_ratios():
    large = lamina.architecture("deepseek-v3")
    small = large.scaled(2_000_000_000)
    experts = [op for op in small.ops() if isinstance(op, MoE)]
    assert {op.router.experts / op.router.active for op in experts} == {256 / 8}
    assert not any(isinstance(op, MoE) for op in small.blocks[0].ops())
    assert all(isinstance(op, LatentAttention) for op in (next(b.ops()) for b in small.blocks))
    shares = [arch.parameters().active / arch.parameters().total for arch in (large, small)]
    assert shares[1] < 5 * shares[0]


@pytest.mark.parametrize("name", ["llama-3-8b", "qwen3-0.6b", "gemma-3-27b", "phi-4"])
def test_groups_and_proportions(name):
    large = lamina.architecture(name)
    small = large.scaled(large.parameters().total // 5)
    for a, b in zip(kinds(large.blocks)[0], kinds(small.blocks)[0], strict=True):
        old, new = next(a.ops()), next(b.ops())
        assert old.heads / old.kv_heads == new.heads / new.kv_heads
        inner = (op.heads * op.head_dim / arch.width for op, arch in ((old, large), (new, small)))
        assert math.isclose(*inner, rel_tol=0.15)
        assert math.isclose(old.softcap or 1, new.softcap or 1)
    assert math.isclose(large.width / len(large.blocks), small.width / len(small.blocks), rel_tol=0.2)


def test_what_is_kept():
    arch = lamina.architecture("qwen3-4b")
    assert len(arch.scaled(10**9, keep=("vocab", "depth")).blocks) == 36
    heads = arch.scaled(10**9, keep=("vocab", "heads"))
    assert {op.heads for op in heads.ops() if isinstance(op, Attention)} == {32}
    assert arch.scaled(10**9).vocab == arch.vocab
    assert arch.scaled(10**9, keep=()).vocab < arch.vocab
    assert arch.scaled(2 * arch.parameters().total).parameters().total > arch.parameters().total


@pytest.mark.parametrize(
    ("parameters", "keep", "said"),
    [
        (
            10**6,
            ("vocab",),
            "no sibling of qwen3-4b has about 1,000,000 parameters; the nearest has .* the embedding's",
        ),
        (0, ("vocab",), r"parameters \(0\) must be positive"),
        (10**9, ("colour",), "keep names 'colour'; known: vocab, depth, heads, experts"),
    ],
)
def test_what_cannot_be_scaled(parameters, keep, said):
    with pytest.raises(LaminaError, match=said):
        lamina.architecture("qwen3-4b").scaled(parameters, keep)
