"""Trinity (AFMoE): gated attention, positions in the windowed layers only, norms around each sublayer, sigmoid routing.

Source: arXiv 2602.17004.
"""

from __future__ import annotations

import math
from typing import Any

from lamina.arch import Architecture, Block, Branch, QKNorm, RMSNorm
from lamina.arch.base import Op
from lamina.published.common import (
    Family,
    alternating,
    attention_of,
    common_keys,
    decoder,
    rope_keys,
    sizes,
    windows,
)
from lamina.published.config import Config
from lamina.published.experts import dense_of, mixture, moe_of, router, shared_experts, sparse_blocks, sparse_layers
from lamina.published.rope import LAYER_TYPES
from lamina.published.rules import ATTENTION, EXPERTS, GLU, QK_NORMS, SHARED, Layout, Rule, decoder_rules


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, head_dim=128, default_context=16384)
    norm, bias = RMSNorm(eps=s.eps), c.bool("attention_bias", False)
    rotary, window = s.rotary(c), c.count("sliding_window", 1024)
    full = s.attention(bias=bias, output_bias=bias, gate="elementwise", qk_norm=QKNorm(norm=norm))
    attentions = {"full_attention": full, "sliding_attention": full.replace(rotary=rotary, window=window)}
    period = c.count("global_attn_every_n_layers", 4)
    kinds = c.layer_types(s.layers, alternating(s.layers, period, period - 1), LAYER_TYPES)
    chosen = router(c, experts=64, active=6, score="sigmoid", correction=True)
    c.only("num_expert_groups", 1)
    c.only("num_limited_groups", 1)
    c.ignore("how the publisher's code runs", "use_grouped_mm")
    experts = mixture(c, s, chosen, inner=1408, shared=2)

    def block(attention: Op, feed_forward: Op) -> Block:
        ops = (attention, feed_forward)
        return Block(branches=tuple(Branch(op=op, before=norm, after=norm) for op in ops))

    made = {(k, has): block(attentions[k], experts if has else s.glu()) for k in attentions for has in (True, False)}
    layers = zip(kinds, sparse_layers(c, s.layers, dense=1), strict=True)
    scale = math.sqrt(s.width) if c.bool("mup_enabled", False) else 1.0
    return decoder(c, "trinity", s, [made[key] for key in layers], norm, embedding_scale=scale)


def write(arch: Architecture) -> dict[str, Any]:
    moe, (window, kinds) = moe_of(arch), windows(arch)
    return {
        "model_type": "afmoe",
        **common_keys(arch, "AfmoeForCausalLM", feed_forward=dense_of(arch)),
        **rope_keys(arch),
        "attention_bias": attention_of(arch).bias,
        "layer_types": kinds,
        "sliding_window": window or 1024,
        "mup_enabled": arch.embedding.scale != 1.0,
        "num_dense_layers": sparse_blocks(arch).index(True),
        "num_experts": moe.router.experts,
        "num_experts_per_tok": moe.router.active,
        "num_shared_experts": shared_experts(moe),
        "moe_intermediate_size": moe.expert.inner,
        "route_scale": moe.router.scale,
    }


BLOCK = (
    *(ATTENTION + QK_NORMS + GLU + EXPERTS + SHARED),
    Rule("self_attn.gate_proj", "mixer.op.gate_proj"),
    Rule("mlp.router.gate", "feed_forward.op.router.gate"),
    Rule("mlp.expert_bias", "feed_forward.op.router.correction"),
    Rule("input_layernorm", "mixer.before"),
    Rule("post_attention_layernorm", "mixer.after"),
    Rule("pre_mlp_layernorm", "feed_forward.before"),
    Rule("post_mlp_layernorm", "feed_forward.after"),
)
FAMILIES = (Family("trinity", ("afmoe",), read, write, Layout(decoder_rules(BLOCK))),)
