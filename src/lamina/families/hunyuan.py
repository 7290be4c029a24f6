"""Hunyuan 3: grouped queries, and experts beside a shared one.

Source: the published Hy3-preview config and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, QKNorm, RMSNorm
from lamina.published.common import Family, attention_of, common_keys, decoder, pre_norms, rope_keys, sizes
from lamina.published.config import LATER, Config
from lamina.published.experts import dense_of, layer_kinds, mixture, moe_of, router, shared_experts, sparse_layers
from lamina.published.rules import (
    ATTENTION,
    EXPERTS,
    GLU,
    PRE_NORMS,
    QK_NORMS,
    Layout,
    Rule,
    decoder_rules,
    later_layers,
    shared_rules,
)

PREDICTION = ("num_nextn_predict_layers", "num_mtp_layers", "mtp_num_layers")


def read_v3(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, kv_heads=8, head_dim=128, default_context=131072)
    norm, bias = RMSNorm(eps=s.eps), c.bool("attention_bias", False)
    for key in ("qk_norm", "moe_router_use_sigmoid", "moe_router_enable_expert_bias"):
        c.only(key, True)
    c.only("route_norm", True)
    c.ignore("how the reference runs", "enable_moe_fp32_combine", "enable_lm_head_fp32", "use_grouped_mm")
    c.ignore("how the reference runs", "enable_attention_fp32_softmax")
    c.ignore(LATER, *PREDICTION)
    c.only("mlp_bias", False)
    attention = s.attention(rotary=s.rotary(c, 11_158_840.0), qk_norm=QKNorm(norm=norm), bias=bias, output_bias=bias)
    moe = mixture(c, s, router(c, 192, 8, "sigmoid", scale=2.826, correction=True), 1536, shared=1)
    c.only("expert_hidden_dim", moe.expert.inner)
    feed_forwards = [moe if sparse else s.glu() for sparse in sparse_layers(c, s.layers, 1)]
    return decoder(c, "hy_v3", s, pre_norms([attention] * s.layers, feed_forwards, norm), norm)


def write_v3(arch: Architecture) -> dict[str, Any]:
    moe = moe_of(arch)
    return {
        "model_type": "hy_v3",
        **common_keys(arch, "HYV3ForCausalLM", feed_forward=dense_of(arch)),
        **rope_keys(arch),
        **layer_kinds(arch),
        "attention_bias": attention_of(arch).bias,
        "num_experts": moe.router.experts,
        "num_experts_per_tok": moe.router.active,
        "num_shared_experts": shared_experts(moe),
        "moe_intermediate_size": moe.expert.inner,
        "router_scaling_factor": moe.router.scale,
    }


BLOCK = (
    *(ATTENTION + QK_NORMS + PRE_NORMS + GLU + EXPERTS + shared_rules("mlp.shared_mlp")),
    Rule("mlp.router.gate", "feed_forward.op.router.gate"),
    Rule("mlp.expert_bias", "feed_forward.op.router.correction"),
)


def layout_v3(arch: Architecture) -> Layout:
    return Layout(decoder_rules(BLOCK), skip=later_layers(len(arch.blocks)))


FAMILIES = (Family("hy_v3", ("hy_v3",), read_v3, write_v3, layout_v3),)
