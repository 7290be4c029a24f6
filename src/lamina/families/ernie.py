"""ERNIE 4.5 MoE: softmax scores, a learned bias that only chooses, experts in a stretch of the layers.

Source: the ERNIE 4.5 technical report (2025) and its published configs.
"""

from __future__ import annotations

from lamina.arch import Architecture, MoE, RMSNorm, Router
from lamina.published.common import Family, decoder, pre_norms, sizes
from lamina.published.config import Config
from lamina.published.experts import TRAINING


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, kv_heads=4, default_context=131072)
    bias, norm = c.bool("use_bias", False), RMSNorm(eps=s.eps)
    rotary = s.rotary(c, 500_000.0, layout="interleaved")
    attention = s.attention(rotary=rotary, bias=bias, output_bias=bias)
    chosen = Router(experts=c.count("moe_num_experts", 64), active=c.count("moe_k", 6), correction=True)
    inner, shared = c.count("moe_intermediate_size", 1536), c.count("moe_num_shared_experts", 2, least=0)
    experts = MoE(
        router=chosen,
        expert=s.glu().replace(inner=inner),
        shared=s.glu(bias).replace(inner=inner * shared) if shared else None,
    )
    c.ignore("keeps the sum of scores from zero; it is far from it", "moe_norm_min")
    c.ignore("training, or how the router is computed", *TRAINING)
    first, last = c.int("moe_layer_start_index", 1), c.int("moe_layer_end_index", -1)
    step, last = c.count("moe_layer_interval", 1), s.layers - 1 if last == -1 else last
    sparse = [first <= i <= last and (i + 1) % step == 0 for i in range(s.layers)]
    feed_forwards = [experts if has else s.glu(bias) for has in sparse]
    return decoder(
        c, "ernie4_5_moe", s, pre_norms([attention] * s.layers, feed_forwards, norm), norm, tied=True, bias=bias
    )


FAMILIES = (Family("ernie4_5_moe", ("ernie4_5_moe",), read),)
