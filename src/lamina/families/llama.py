"""Llama 2, 3, 3.1, 3.2, SmolLM2, and whatever else is published as `llama`; Mistral and CWM differ by their windows.

Source: arXiv 2302.13971, 2307.09288, 2407.21783; Mistral: 2310.06825; CWM: 2510.02387.
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, RMSNorm
from lamina.published import rope, vision
from lamina.published.common import (
    Family,
    alternating,
    attention_of,
    common_keys,
    decoder,
    glu_of,
    pre_norm,
    rope_keys,
    sizes,
    windows,
)
from lamina.published.config import Config
from lamina.published.encoders import split
from lamina.published.rules import (
    ATTENTION,
    COMPUTED,
    GLU,
    MULTIMODAL,
    PRE_NORMS,
    VISION,
    Layout,
    decoder_rules,
)

LAYOUT = Layout(
    decoder_rules(ATTENTION + GLU + PRE_NORMS),
    spellings=MULTIMODAL,
    skip=COMPUTED | VISION,
)


def read_llama(c: Config) -> Architecture:
    s = sizes(c)
    bias = c.bool("attention_bias", False)
    attention = s.attention(rotary=s.rotary(c), bias=bias, output_bias=bias)
    norm = RMSNorm(eps=s.eps)
    block = pre_norm(attention, s.glu(c.bool("mlp_bias", False)), norm)
    return decoder(c, "llama", s, [block] * s.layers, norm)


def write_llama(arch: Architecture) -> dict[str, Any]:
    return {
        "model_type": "llama",
        **common_keys(arch, "LlamaForCausalLM"),
        **rope_keys(arch),
        "attention_bias": attention_of(arch).bias,
        "mlp_bias": glu_of(arch).bias,
    }


def read_mistral(c: Config) -> Architecture:
    """Every layer has the same window, or none."""
    c, encoders = split(c, vision.pixtral)
    s = sizes(c, kv_heads=8, default_context=131072)
    window = c.count("sliding_window", None) if "sliding_window" in c.data else 4096
    norm = RMSNorm(eps=s.eps)
    block = pre_norm(s.attention(rotary=s.rotary(c), window=window), s.glu(), norm)
    return decoder(c, "mistral", s, [block] * s.layers, norm).replace(encoders=encoders)


def write_mistral(arch: Architecture) -> dict[str, Any]:
    window = attention_of(arch).window
    keys = {**common_keys(arch, "MistralForCausalLM"), **rope_keys(arch)}
    return {"model_type": "mistral", **keys, "sliding_window": window}


def read_cwm(c: Config) -> Architecture:
    """The code world model: three layers with a window to one without."""
    s = sizes(c, eps=1e-5, head_dim=128, kv_heads=8, default_context=131072)
    values = rope.parameters(c, 1_000_000.0)
    if "rope_parameters" not in c and "rope_scaling" not in c:
        values |= {"rope_type": "llama3", "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        values |= {"original_max_position_embeddings": 8192}
    rotary = rope.rotary(c, values, s.head_dim, s.context)
    window = c.count("sliding_window", 8192)
    kinds = c.layer_types(s.layers, alternating(s.layers, 4, 0), rope.LAYER_TYPES)
    norm, glu = RMSNorm(eps=s.eps), s.glu(c.bool("mlp_bias", False))
    made = {
        kind: pre_norm(s.attention(rotary=rotary, window=seen), glu, norm)
        for kind, seen in (("full_attention", None), ("sliding_attention", window))
    }
    return decoder(c, "cwm", s, [made[kind] for kind in kinds], norm)


def write_cwm(arch: Architecture) -> dict[str, Any]:
    window, kinds = windows(arch)
    keys = {**common_keys(arch, "CwmForCausalLM"), **rope_keys(arch), "mlp_bias": glu_of(arch).bias}
    return {"model_type": "cwm", **keys, "sliding_window": window or 8192, "layer_types": kinds}


FAMILIES = (
    Family("llama", ("llama",), read_llama, write_llama, LAYOUT),
    Family("mistral", ("mistral", "mistral3"), read_mistral, write_mistral, LAYOUT),
    Family("cwm", ("cwm",), read_cwm, write_cwm, LAYOUT),
)
