"""OLMoE: a norm over all query and all key heads at once, experts whose weights are not made to sum to one.

Source: arXiv 2409.02060.
"""

from __future__ import annotations

from lamina.arch import Architecture, QKNorm, RMSNorm
from lamina.published.common import Family, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.experts import mixture, router


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, default_context=4096)
    bias, norm = c.bool("attention_bias", False), RMSNorm(eps=s.eps)
    c.only("clip_qkv", None)
    qk_norm = QKNorm(norm=norm, over="width")
    attention = s.attention(rotary=s.rotary(c), bias=bias, output_bias=bias, qk_norm=qk_norm)
    experts = mixture(c, s, router(c, experts=64, active=8, normalise=False), inner=s.inner)
    return decoder(c, "olmoe", s, [pre_norm(attention, experts, norm)] * s.layers, norm)


FAMILIES = (Family("olmoe", ("olmoe",), read),)
