"""Granite MoE: the four multipliers of Granite, and experts weighed by a softmax over the chosen alone.

Some have a feed-forward that all tokens use beside the experts.
Source: the published Granite 3 MoE configs; the multipliers are arXiv 2203.03466.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, RMSNorm
from lamina.published.common import (
    Family,
    attention_of,
    common_keys,
    decoder,
    inverse,
    pick,
    pre_norm,
    rope_keys,
    sizes,
)
from lamina.published.config import Config
from lamina.published.experts import joined_rules, mixture, moe_of, router, router_keys
from lamina.published.rules import ATTENTION, PRE_NORMS, Layout, Rule, decoder_rules


def _read(c: Config, family: str, shared: int) -> Architecture:
    """`shared` is the width of what every token uses; 0 for nothing."""
    s = sizes(c)
    bias, norm = c.bool("attention_bias", False), RMSNorm(eps=s.eps)
    attention = s.attention(rotary=s.rotary(c), bias=bias, output_bias=bias, scale=c.float("attention_multiplier", 1.0))
    experts = mixture(c, s, router(c, experts=8, active=2), inner=s.inner)
    experts = experts.replace(shared=s.glu().replace(inner=shared)) if shared else experts
    block = pre_norm(attention, experts, norm, multiplier=c.float("residual_multiplier", 1.0))
    scale, logits = c.float("embedding_multiplier", 1.0), 1 / c.float("logits_scaling", 1.0)
    return decoder(c, family, s, [block] * s.layers, norm, embedding_scale=scale, scale=logits)


def read(c: Config) -> Architecture:
    return _read(c, "granitemoe", 0)


def read_shared(c: Config) -> Architecture:
    return _read(c, "granitemoeshared", c.count("shared_intermediate_size", 0, least=0))


def _keys(arch: Architecture, name: str) -> dict[str, Any]:
    attention, moe = attention_of(arch), moe_of(arch)
    return {
        **common_keys(arch, name, feed_forward=moe.expert),
        **rope_keys(arch),
        **pick(router_keys(moe.router, "num_local_experts"), "num_local_experts", "num_experts_per_tok"),
        "attention_bias": attention.bias,
        "attention_multiplier": attention.scale,
        "residual_multiplier": arch.blocks[0].branches[0].multiplier,
        "embedding_multiplier": arch.embedding.scale,
        "logits_scaling": inverse(arch.head.scale),
    }


def write(arch: Architecture) -> dict[str, Any]:
    return {"model_type": "granitemoe", **_keys(arch, "GraniteMoeForCausalLM")}


def write_shared(arch: Architecture) -> dict[str, Any]:
    keys, shared = _keys(arch, "GraniteMoeSharedForCausalLM"), moe_of(arch).shared
    return {"model_type": "granitemoeshared", **keys, "shared_intermediate_size": shared.inner if shared else 0}


BLOCK = (
    *(ATTENTION + PRE_NORMS),
    *joined_rules("block_sparse_moe", "feed_forward.op.experts", stacked=True),
    *joined_rules("shared_mlp", "feed_forward.op.shared"),
    Rule("block_sparse_moe.router.layer", "feed_forward.op.router.gate"),
)
LAYOUT = Layout(decoder_rules(BLOCK))

FAMILIES = (
    Family("granitemoe", ("granitemoe",), read, write, LAYOUT),
    Family("granitemoeshared", ("granitemoeshared",), read_shared, write_shared, LAYOUT),
)
