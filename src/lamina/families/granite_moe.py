"""Granite MoE: the four multipliers of Granite, and experts weighed by a softmax over the chosen alone.

Source: the published Granite 3 MoE configs; the multipliers are arXiv 2203.03466.
"""

from __future__ import annotations

from lamina.arch import Architecture, RMSNorm
from lamina.published.common import Family, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.experts import mixture, router


def read(c: Config) -> Architecture:
    s = sizes(c)
    bias, norm = c.bool("attention_bias", False), RMSNorm(eps=s.eps)
    attention = s.attention(rotary=s.rotary(c), bias=bias, output_bias=bias, scale=c.float("attention_multiplier", 1.0))
    experts = mixture(c, s, router(c, experts=8, active=2), inner=s.inner)
    block = pre_norm(attention, experts, norm, multiplier=c.float("residual_multiplier", 1.0))
    scale, logits = c.float("embedding_multiplier", 1.0), 1 / c.float("logits_scaling", 1.0)
    return decoder(c, "granitemoe", s, [block] * s.layers, norm, embedding_scale=scale, scale=logits)


FAMILIES = (Family("granitemoe", ("granitemoe",), read),)
