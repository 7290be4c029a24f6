"""Granite dense: Llama with four multipliers (embedding, attention scores, residual branches, logits).

Source: the published Granite 3 configs; the idea is maximal update parametrisation, arXiv 2203.03466.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, RMSNorm
from lamina.published.common import (
    Family,
    attention_of,
    common_keys,
    decoder,
    glu_of,
    inverse,
    pre_norm,
    rope_keys,
    sizes,
)
from lamina.published.config import Config
from lamina.published.rules import ATTENTION, GLU, PRE_NORMS, Layout, decoder_rules


def read(c: Config) -> Architecture:
    s = sizes(c)
    bias, norm = c.bool("attention_bias", False), RMSNorm(eps=s.eps)
    attention = s.attention(rotary=s.rotary(c), bias=bias, output_bias=bias, scale=c.float("attention_multiplier", 1.0))
    glu = s.glu(c.bool("mlp_bias", False))
    block = pre_norm(attention, glu, norm, multiplier=c.float("residual_multiplier", 1.0))
    return decoder(
        c,
        "granite",
        s,
        [block] * s.layers,
        norm,
        embedding_scale=c.float("embedding_multiplier", 1.0),
        scale=1 / c.float("logits_scaling", 1.0),
    )


def write(arch: Architecture) -> dict[str, Any]:
    attention = attention_of(arch)
    return {
        "model_type": "granite",
        **common_keys(arch, "GraniteForCausalLM"),
        **rope_keys(arch),
        "attention_bias": attention.bias,
        "mlp_bias": glu_of(arch).bias,
        "attention_multiplier": attention.scale,
        "residual_multiplier": arch.blocks[0].branches[0].multiplier,
        "embedding_multiplier": arch.embedding.scale,
        "logits_scaling": inverse(arch.head.scale),
    }


FAMILIES = (Family("granite", ("granite",), read, write, Layout(decoder_rules(ATTENTION + GLU + PRE_NORMS))),)
