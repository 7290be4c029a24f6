"""MiniMax-M2: softmax attention whose queries and keys are normalised over all heads, and experts in every layer.

Source: the published config and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, QKNorm, RMSNorm
from lamina.published import rope
from lamina.published.common import Family, common_keys, decoder, pick, pre_norm, rope_keys, sizes
from lamina.published.config import LATER, Config
from lamina.published.experts import dense_of, mixture, moe_of, router, router_keys
from lamina.published.rules import ATTENTION, BLOCK_SPARSE, PRE_NORMS, QK_NORMS, Layout, decoder_rules, later_layers


def read(c: Config) -> Architecture:
    s = sizes(c, kv_heads=8, head_dim=128, default_context=196608)
    values, turned = rope.parameters(c, 5_000_000.0), c.count("rotary_dim", None)
    if turned:
        values.setdefault("partial_rotary_factor", turned / s.head_dim)
    norm = RMSNorm(eps=s.eps)
    c.only("use_qk_norm", True)
    c.only("qk_norm_type", "per_layer")
    c.only("use_routing_bias", True)
    c.only("shared_intermediate_size", 0)
    c.ignore(LATER, "use_mtp", "mtp_transformer_layers", "num_mtp_modules")
    attention = s.attention(
        rotary=rope.rotary(c, values, s.head_dim, s.context), qk_norm=QKNorm(norm=norm, over="width")
    )
    chosen = router(c, experts=256, active=8, score="sigmoid", correction=True)
    experts = mixture(c, s, chosen, inner=s.inner)
    return decoder(c, "minimax_m2", s, [pre_norm(attention, experts, norm)] * s.layers, norm)


def write(arch: Architecture) -> dict[str, Any]:
    counts = "num_local_experts", "num_experts_per_tok"
    return {
        "model_type": "minimax_m2",
        **common_keys(arch, "MiniMaxM2ForCausalLM", feed_forward=dense_of(arch)),
        **rope_keys(arch),
        **pick(router_keys(moe_of(arch).router, counts[0]), *counts),
    }


BLOCK = ATTENTION + QK_NORMS + PRE_NORMS + BLOCK_SPARSE


def layout(arch: Architecture) -> Layout:
    return Layout(decoder_rules(BLOCK), skip=later_layers(len(arch.blocks)))


FAMILIES = (Family("minimax_m2", ("minimax_m2",), read, write, layout),)
