"""Mixtral: Mistral with experts in every layer, their weights a softmax over the chosen alone.

Source: arXiv 2401.04088.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, RMSNorm
from lamina.published.common import Family, attention_of, common_keys, decoder, pick, pre_norm, rope_keys, sizes
from lamina.published.config import Config
from lamina.published.experts import mixture, moe_of, router, router_keys
from lamina.published.rules import ATTENTION, BLOCK_SPARSE, PRE_NORMS, Layout, decoder_rules


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, kv_heads=8, default_context=131072)
    norm = RMSNorm(eps=s.eps)
    attention = s.attention(rotary=s.rotary(c, 1_000_000.0), window=c.count("sliding_window", None))
    experts = mixture(c, s, router(c, experts=8, active=2), inner=s.inner)
    return decoder(c, "mixtral", s, [pre_norm(attention, experts, norm)] * s.layers, norm)


def write(arch: Architecture) -> dict[str, Any]:
    moe = moe_of(arch)
    return {
        "model_type": "mixtral",
        **common_keys(arch, "MixtralForCausalLM", feed_forward=moe.expert),
        **rope_keys(arch),
        **pick(router_keys(moe.router, "num_local_experts"), "num_local_experts", "num_experts_per_tok"),
        "sliding_window": attention_of(arch).window,
    }


LAYOUT = Layout(decoder_rules(ATTENTION + PRE_NORMS + BLOCK_SPARSE))

FAMILIES = (Family("mixtral", ("mixtral",), read, write, LAYOUT),)
