"""Mixtral: Mistral with experts in every layer, their weights a softmax over the chosen alone.

Source: arXiv 2401.04088.
"""

from __future__ import annotations

from lamina.arch import Architecture, RMSNorm
from lamina.published.common import Family, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.experts import mixture, router


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, kv_heads=8, default_context=131072)
    norm = RMSNorm(eps=s.eps)
    attention = s.attention(rotary=s.rotary(c, 1_000_000.0), window=c.count("sliding_window", None))
    experts = mixture(c, s, router(c, experts=8, active=2), inner=s.inner)
    return decoder(c, "mixtral", s, [pre_norm(attention, experts, norm)] * s.layers, norm)


FAMILIES = (Family("mixtral", ("mixtral",), read),)
