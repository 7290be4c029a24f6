"""Seed-OSS: Llama with biases on q, k and v, and more query heads than the width holds.

Source: the published Seed-OSS-36B config and the reference's code.
"""

from __future__ import annotations

from lamina.arch import Architecture, RMSNorm
from lamina.published.common import Family, decoder, pre_norm, sizes
from lamina.published.config import Config


def read(c: Config) -> Architecture:
    s = sizes(c, kv_heads=8, head_dim=128, default_context=524288)
    c.ignore("training", "residual_dropout")
    bias, output_bias = c.bool("attention_bias", True), c.bool("attention_out_bias", False)
    attention = s.attention(rotary=s.rotary(c), bias=bias, output_bias=output_bias)
    norm = RMSNorm(eps=s.eps)
    block = pre_norm(attention, s.glu(c.bool("mlp_bias", False)), norm)
    return decoder(c, "seed_oss", s, [block] * s.layers, norm)


FAMILIES = (Family("seed_oss", ("seed_oss",), read),)
