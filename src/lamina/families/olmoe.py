"""OLMoE: a norm over all query and all key heads at once, experts whose weights are not made to sum to one.

FlexOlmo has the norms of OLMo 2, after each sublayer, and experts that were trained apart.
Source: arXiv 2409.02060 (OLMoE), 2507.07024 (FlexOlmo).
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Block, Branch, MoE, QKNorm, RMSNorm
from lamina.arch.mixers import Attention
from lamina.published.common import (
    Family,
    Sizes,
    attention_of,
    common_keys,
    decoder,
    pick,
    pre_norm,
    rope_keys,
    sizes,
)
from lamina.published.config import Config
from lamina.published.experts import mixture, moe_of, router, router_keys
from lamina.published.rules import (
    AFTER_NORMS,
    ATTENTION,
    EXPERTS,
    PRE_NORMS,
    QK_NORMS,
    ROUTER,
    Layout,
    decoder_rules,
)


def _parts(c: Config, s: Sizes, base: float, experts: int, active: int) -> tuple[Attention, MoE]:
    bias, qk_norm = c.bool("attention_bias", False), QKNorm(norm=RMSNorm(eps=s.eps), over="width")
    attention = s.attention(rotary=s.rotary(c, base), bias=bias, output_bias=bias, qk_norm=qk_norm)
    return attention, mixture(c, s, router(c, experts=experts, active=active, normalise=False), inner=s.inner)


def read_olmoe(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, default_context=4096)
    c.only("clip_qkv", None)
    norm, (attention, experts) = RMSNorm(eps=s.eps), _parts(c, s, 10_000.0, 64, 8)
    return decoder(c, "olmoe", s, [pre_norm(attention, experts, norm)] * s.layers, norm)


def read_flex(c: Config) -> Architecture:
    s = sizes(c, default_context=4096)
    norm, ops = RMSNorm(eps=s.eps), _parts(c, s, 500_000.0, 7, 5)
    block = Block(branches=tuple(Branch(op=op, after=norm) for op in ops))
    return decoder(c, "flex_olmo", s, [block] * s.layers, norm)


def _keys(arch: Architecture, name: str) -> dict[str, Any]:
    moe = moe_of(arch)
    return {
        **common_keys(arch, name, feed_forward=moe.expert),
        **rope_keys(arch),
        **pick(router_keys(moe.router, "num_experts"), "num_experts", "num_experts_per_tok", "norm_topk_prob"),
        "attention_bias": attention_of(arch).bias,
    }


def write_olmoe(arch: Architecture) -> dict[str, Any]:
    return {"model_type": "olmoe", **_keys(arch, "OlmoeForCausalLM")}


def write_flex(arch: Architecture) -> dict[str, Any]:
    return {"model_type": "flex_olmo", **_keys(arch, "FlexOlmoForCausalLM")}


BLOCK = ATTENTION + QK_NORMS + EXPERTS + ROUTER

FAMILIES = (
    Family("olmoe", ("olmoe",), read_olmoe, write_olmoe, Layout(decoder_rules(BLOCK + PRE_NORMS))),
    Family("flex_olmo", ("flex_olmo",), read_flex, write_flex, Layout(decoder_rules(BLOCK + AFTER_NORMS))),
)
