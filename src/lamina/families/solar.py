"""Solar Open: Llama attention and experts in every layer, as DeepSeek-V3 routes them.

Source: the published Solar-Open-100B config, arXiv 2601.07022.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, RMSNorm
from lamina.published.common import Family, attention_of, common_keys, decoder, pre_norm, rope_keys, sizes
from lamina.published.config import Config
from lamina.published.experts import dense_of, mixture, moe_of, router, router_keys, shared_experts, sparse_layers
from lamina.published.rules import ATTENTION, CORRECTION, EXPERTS, PRE_NORMS, ROUTER, SHARED, Layout, decoder_rules


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, kv_heads=8, head_dim=128, default_context=131072, inner=1)
    c.ignore("every layer has experts", "intermediate_size")
    c.only("first_k_dense_replace", 0)
    c.only("use_qk_norm", False)
    attention = s.attention(rotary=s.rotary(c, 1_000_000.0), bias=c.bool("attention_bias", False))
    moe = mixture(c, s, router(c, 128, 8, "sigmoid", correction=True), 1280, shared=1)
    sparse_layers(c, s.layers)
    norm = RMSNorm(eps=s.eps)
    return decoder(c, "solar_open", s, [pre_norm(attention, moe, norm)] * s.layers, norm)


def write(arch: Architecture) -> dict[str, Any]:
    moe, keys = moe_of(arch), common_keys(arch, "SolarOpenForCausalLM", feed_forward=dense_of(arch))
    del keys["intermediate_size"]
    return {
        "model_type": "solar_open",
        **keys,
        **rope_keys(arch),
        **router_keys(moe.router, "n_routed_experts"),
        "attention_bias": attention_of(arch).bias,
        "moe_intermediate_size": moe.expert.inner,
        "n_shared_experts": shared_experts(moe),
    }


LAYOUT = Layout(decoder_rules(ATTENTION + PRE_NORMS + EXPERTS + ROUTER + CORRECTION + SHARED))
FAMILIES = (Family("solar_open", ("solar_open",), read, write, LAYOUT),)
