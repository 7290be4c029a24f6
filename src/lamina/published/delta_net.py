"""Gated DeltaNet, and attention whose gate lies among its queries, as the hybrids of Qwen and OLMo publish them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lamina.arch import Architecture, Attention, GatedDeltaNet
from lamina.published.common import common_keys, rope_keys
from lamina.published.config import LATER
from lamina.published.rules import QK_NORMS, Rule, named

LINEAR, FULL = "linear_attention", "full_attention"
TO, OURS = "linear_attn.", "mixer.op."
CONVOLVED, OTHERS = ("q_proj.weight", "k_proj.weight", "v_proj.weight"), ("step_proj.weight", "decay_proj.weight")

RATES = "A_log:decay_log_rate dt_bias:decay_bias "
REST = named(TO, OURS, RATES + "conv1d:convolution norm out_proj:o_proj")
APART = (
    *REST,
    Rule(TO + "in_proj_qkv.weight", *(OURS + name for name in CONVOLVED)),
    *named(TO, OURS, "in_proj_z:gate_proj in_proj_b:step_proj in_proj_a:decay_proj"),
)
"""Of Qwen3.5 and later: the input's projections are four tensors."""

SKIP = {r"mtp\..*": LATER, r"(model\.)?visual\..*": "the image encoder is not part of this model"}


def separate(to: str = TO) -> tuple[Rule, ...]:
    """Of flash-linear-attention and OLMo Hybrid: a tensor for each projection of the input, and three convolutions."""
    names = "q_proj k_proj v_proj b_proj:step_proj a_proj:decay_proj g_proj:gate_proj o_norm:norm o_proj"
    parts = {part: f"{OURS}{part}_proj" for part in "qkv"}
    return (*named(to, OURS, RATES + names), Rule(to + "{part}_conv1d", OURS + "convolution", parts=parts))


def together(net: GatedDeltaNet) -> tuple[Rule, ...]:
    """Of Qwen3-Next: the input's projections are two tensors, in each of which key head follows key head."""
    inputs = [OURS + name for name in (*CONVOLVED, "gate_proj.weight")]
    steps = [OURS + name for name in OTHERS]
    return (
        *REST,
        Rule(TO + "in_proj_qkvz.weight", *inputs, turns=net.key_heads),
        Rule(TO + "in_proj_ba.weight", *steps, turns=net.key_heads),
    )


def mixers(arch: Architecture, linear: Iterable[Rule], full: Iterable[Rule] | None = None) -> tuple[Rule, ...]:
    """The rules of both kinds of mixers, each for its blocks; attention's are those of a gate among the queries.

    In such a `q_proj` the queries of a head are followed by its gate.
    """
    found = [i for i, kind in enumerate(kinds(arch)) if kind == LINEAR]
    heads = [op.heads for op in arch.ops() if isinstance(op, Attention)]
    if full is None:
        both = [f"{OURS}{name}.weight" for name in ("q_proj", "gate_proj")]
        first = Rule("self_attn.q_proj.weight", *both, turns=heads[0] if heads else 0)
        full = (first, *named("self_attn.", OURS, "k_proj v_proj o_proj"), *QK_NORMS)
    others = set(range(len(arch.blocks))) - set(found)
    return (*(rule.limited(found) for rule in linear), *(rule.limited(others) for rule in full))


def kinds(arch: Architecture) -> list[str]:
    """The type of each layer."""
    return [LINEAR if any(isinstance(op, GatedDeltaNet) for op in block.ops()) else FULL for block in arch.blocks]


def parts(arch: Architecture) -> tuple[GatedDeltaNet, Attention]:
    """The two kinds of mixers; in place of one that a model has not, the smallest that a config can say."""
    ops = tuple(arch.ops())
    net = GatedDeltaNet(key_heads=1, value_heads=1, key_dim=1, value_dim=1)
    net = next((op for op in ops if isinstance(op, GatedDeltaNet)), net)
    return net, next((op for op in ops if isinstance(op, Attention)), Attention(heads=1, kv_heads=1, head_dim=8))


def keys(arch: Architecture, name: str, feed_forward: Any) -> dict[str, Any]:
    """What all of them say in the same words; the rotary share is always said, for there is a default for it."""
    net, attention = parts(arch)
    return {
        **common_keys(arch, name, feed_forward=feed_forward, attention=attention),
        **{key: {"partial_rotary_factor": 1.0} | values for key, values in rope_keys(arch).items()},
        "layer_types": kinds(arch),
        "linear_num_key_heads": net.key_heads,
        "linear_num_value_heads": net.value_heads,
        "linear_key_head_dim": net.key_dim,
        "linear_value_head_dim": net.value_dim,
        "linear_conv_kernel_dim": net.convolution,
    }
