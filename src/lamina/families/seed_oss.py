"""Seed-OSS: Llama with biases on q, k and v, and more query heads than the width holds.

Source: the published Seed-OSS-36B config and the reference's code.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, RMSNorm
from lamina.published.common import Family, attention_of, common_keys, decoder, glu_of, pre_norm, rope_keys, sizes
from lamina.published.config import Config
from lamina.published.rules import ATTENTION, GLU, PRE_NORMS, Layout, decoder_rules


def read(c: Config) -> Architecture:
    s = sizes(c, kv_heads=8, head_dim=128, default_context=524288)
    c.ignore("training", "residual_dropout")
    bias, output_bias = c.bool("attention_bias", True), c.bool("attention_out_bias", False)
    attention = s.attention(rotary=s.rotary(c), bias=bias, output_bias=output_bias)
    norm = RMSNorm(eps=s.eps)
    block = pre_norm(attention, s.glu(c.bool("mlp_bias", False)), norm)
    return decoder(c, "seed_oss", s, [block] * s.layers, norm)


def write(arch: Architecture) -> dict[str, Any]:
    attention = attention_of(arch)
    return {
        "model_type": "seed_oss",
        **common_keys(arch, "SeedOssForCausalLM"),
        **rope_keys(arch),
        "attention_bias": attention.bias,
        "attention_out_bias": attention.output_bias,
        "mlp_bias": glu_of(arch).bias,
    }


FAMILIES = (Family("seed_oss", ("seed_oss",), read, write, Layout(decoder_rules(ATTENTION + GLU + PRE_NORMS))),)
