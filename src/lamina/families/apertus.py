"""Apertus: Llama with a norm of queries and keys, and an MLP without a gate behind the learned activation xIELU.

Source: arXiv 2509.14233; xIELU: 2411.13010.
"""

from __future__ import annotations

from lamina.arch import MLP, Architecture, QKNorm, RMSNorm
from lamina.published import rope
from lamina.published.common import Family, decoder, pre_norm, sizes
from lamina.published.config import Config

ROTARY = {
    "rope_type": "llama3",
    "rope_theta": 12_000_000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
"""What a config means that says nothing of rotary embeddings."""


def read(c: Config) -> Architecture:
    s = sizes(c, eps=1e-5, activation="xielu", default_context=65536)
    said = any(key in c for key in ("rope_parameters", "rope_scaling"))
    values = rope.parameters(c, 12_000_000.0)
    rotary = rope.rotary(c, values if said else ROTARY | values, s.head_dim, s.context)
    norm, bias = RMSNorm(eps=s.eps), c.bool("attention_bias", False)
    c.only("mlp_bias", False)
    c.only("post_norm", False)
    c.only("qk_norm", True)
    attention = s.attention(rotary=rotary, qk_norm=QKNorm(norm=norm), bias=bias, output_bias=bias)
    block = pre_norm(attention, MLP(inner=s.inner, activation=s.activation), norm)
    return decoder(c, "apertus", s, [block] * s.layers, norm)


FAMILIES = (Family("apertus", ("apertus",), read),)
