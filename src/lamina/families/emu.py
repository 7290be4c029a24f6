"""Emu3: a Llama decoder whose vocabulary holds the codes of images, which it reads and writes as tokens.

Source: arXiv 2409.18869.
"""

from __future__ import annotations

from lamina.arch import Architecture, RMSNorm
from lamina.published.common import Family, decoder, pre_norm, sizes, text_part
from lamina.published.config import Config


def read(c: Config) -> Architecture:
    c = text_part(c, "images become tokens of the vocabulary through a tokenizer of their own")
    s = sizes(c, eps=1e-5, kv_heads=8, default_context=9216)
    norm, bias = RMSNorm(eps=s.eps), c.bool("attention_bias", False)
    attention = s.attention(rotary=s.rotary(c, 1_000_000.0), bias=bias, output_bias=bias)
    block = pre_norm(attention, s.glu(c.bool("mlp_bias", False)), norm)
    return decoder(c, "emu3", s, [block] * s.layers, norm)


FAMILIES = (Family("emu3", ("emu3", "emu3_text_model"), read),)
