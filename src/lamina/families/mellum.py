"""Mellum 2: Qwen3's experts, with windows in most layers and a rotary base for each kind of layer.

Source: the published Mellum2-12B config and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, QKNorm, RMSNorm
from lamina.published import by_type, rope
from lamina.published.common import Family, common_keys, decoder, pick, pre_norms, sizes
from lamina.published.config import LATER, Config
from lamina.published.experts import dense_of, layer_kinds, mixture, moe_of, router, router_keys, sparse_layers
from lamina.published.rules import ATTENTION, EXPERTS, GLU, PRE_NORMS, QK_NORMS, ROUTER, Layout, decoder_rules

BASES = {"full_attention": 500_000.0, "sliding_attention": 10_000.0}
PREDICTION = ("num_mtp_layers", "num_nextn_predict_layers", "mtp_layer_types", "mtp_mlp_layer_types")


def read(c: Config) -> Architecture:
    s = sizes(c, kv_heads=4, head_dim=128, default_context=131072)
    norm, bias, window = RMSNorm(eps=s.eps), c.bool("attention_bias", False), c.count("sliding_window", 1024)
    c.ignore(LATER, *PREDICTION)
    c.ignore("layer_types is what counts", "use_sliding_window", "max_window_layers")
    said = rope.by_layer_type(c) or {kind: {"rope_theta": base} for kind, base in BASES.items()}
    kinds = c.layer_types(s.layers, ["full_attention"] * s.layers, rope.LAYER_TYPES)
    turned = by_type.rotaries(c, s, kinds, said)
    made = {
        kind: s.attention(
            rotary=turned[kind],
            window=window if kind == "sliding_attention" else None,
            qk_norm=QKNorm(norm=norm),
            bias=bias,
            output_bias=bias,
        )
        for kind in set(kinds)
    }
    moe, glu = mixture(c, s, router(c, 64, 8), 896), s.glu()
    feed_forwards = [moe if sparse else glu for sparse in sparse_layers(c, s.layers)]
    return decoder(c, "mellum", s, pre_norms([made[kind] for kind in kinds], feed_forwards, norm), norm)


def write(arch: Architecture) -> dict[str, Any]:
    moe = moe_of(arch)
    return {
        "model_type": "mellum",
        **common_keys(arch, "MellumForCausalLM", feed_forward=dense_of(arch)),
        **by_type.keys(arch, 1024),
        **layer_kinds(arch),
        **pick(router_keys(moe.router, "num_experts"), "num_experts", "num_experts_per_tok", "norm_topk_prob"),
        "moe_intermediate_size": moe.expert.inner,
    }


SKIP = {r"mtp\..*": LATER}
LAYOUT = Layout(decoder_rules(ATTENTION + QK_NORMS + PRE_NORMS + GLU + EXPERTS + ROUTER), skip=SKIP)
FAMILIES = (Family("mellum", ("mellum",), read, write, LAYOUT),)
