"""Hybrids of Mamba-2 and attention, one of the two in each block, as a config.json writes them."""

from __future__ import annotations

from typing import Any

from lamina.arch import GLU, MLP, Architecture, Attention, Mamba2
from lamina.published.common import common_keys, rope_keys
from lamina.published.recurrent import mamba2_keys, mamba2_rules
from lamina.published.rules import ATTENTION as ATTENTION_RULES
from lamina.published.rules import Rule

MAMBA, ATTENTION = "linear_attention", "full_attention"


def hybrid_keys(arch: Architecture, name: str, glu: GLU | MLP) -> dict[str, Any]:
    """What they say in the same words; of mixers that a model has not, the smallest that a config can say."""
    ops = tuple(arch.ops())
    attention = next((op for op in ops if isinstance(op, Attention)), Attention(heads=1, kv_heads=1, head_dim=4))
    mixer = next((op for op in ops if isinstance(op, Mamba2)), Mamba2(heads=1, head_dim=2 * arch.width, state=1))
    return {
        **common_keys(arch, name, feed_forward=glu, attention=attention),
        **rope_keys(arch),
        **mamba2_keys(mixer, arch.width),
        "attention_bias": attention.bias,
    }


def hybrid_kinds(arch: Architecture) -> list[str]:
    """Which mixer each block has."""
    return [MAMBA if isinstance(block.branches[0].op, Mamba2) else ATTENTION for block in arch.blocks]


def hybrid_mixers(arch: Architecture) -> tuple[Rule, ...]:
    """The rules of both mixers, each for its blocks."""
    by_kind: dict[str, list[int]] = {MAMBA: [], ATTENTION: []}
    for i, kind in enumerate(hybrid_kinds(arch)):
        by_kind[kind].append(i)
    rules = {MAMBA: mamba2_rules(), ATTENTION: ATTENTION_RULES}
    return tuple(rule.limited(blocks) for kind, blocks in by_kind.items() for rule in rules[kind])
