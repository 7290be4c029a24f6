"""Persimmon, and Fuyu, which reads image patches with the same decoder: biases everywhere, squared ReLU, LayerNorm.

Source: the published Persimmon 8B and Fuyu 8B and the reference's code.
"""

from __future__ import annotations

from lamina.arch import MLP, Architecture, LayerNorm, QKNorm
from lamina.published import rope, vision_more
from lamina.published.common import Family, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.encoders import split


def read(c: Config) -> Architecture:
    fuyu = c.data.get("model_type") == "fuyu"
    text, encoders = split(c, *[vision_more.fuyu] * fuyu, always=fuyu)
    s = sizes(text, eps=1e-5, activation="relu2", eps_key="layer_norm_eps", default_context=16384)
    values = rope.parameters(text, 25000.0 if text is c and fuyu else 10000.0)
    values.setdefault("partial_rotary_factor", 0.5)
    norm = LayerNorm(eps=s.eps)
    text.only("num_key_value_heads", s.heads)
    attention = s.attention(
        rotary=rope.rotary(text, values, s.head_dim, s.context),
        qk_norm=QKNorm(norm=norm) if text.bool("qk_layernorm", True) else None,
        bias=True,
        output_bias=True,
    )
    block = pre_norm(attention, MLP(inner=s.inner, activation=s.activation, bias=True), norm)
    return decoder(text, "persimmon", s, [block] * s.layers, norm).replace(encoders=encoders)


FAMILIES = (Family("persimmon", ("persimmon", "fuyu"), read),)
