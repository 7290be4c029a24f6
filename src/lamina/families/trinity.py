"""Trinity (AFMoE): gated attention, positions in the windowed layers only, norms around each sublayer, sigmoid routing.

Source: arXiv 2602.17004.
"""

from __future__ import annotations

import math

from lamina.arch import Architecture, Block, Branch, QKNorm, RMSNorm
from lamina.arch.base import Op
from lamina.published.common import Family, alternating, decoder, sizes
from lamina.published.config import Config
from lamina.published.experts import mixture, router, sparse_layers
from lamina.published.rope import LAYER_TYPES


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


FAMILIES = (Family("trinity", ("afmoe",), read),)
