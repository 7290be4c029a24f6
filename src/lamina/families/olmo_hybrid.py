"""OLMo Hybrid: three of four blocks are Gated DeltaNet behind a norm; the fourth is OLMo 3's attention before one.

Source: the published config of Olmo-Hybrid-7B, which has no positions at all (NoPE).
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Block, Branch, QKNorm, RMSNorm, Rotary
from lamina.published import rope
from lamina.published.common import Family, Sizes, alternating, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.recurrent import delta_net

GATED_NORM_EPS = 1e-5
"""Of the norm within Gated DeltaNet, which no key says."""


def _rotary(c: Config, s: Sizes) -> Rotary | None:
    """None where the base is stated to be null; a config without one is rotated, as in the reference."""
    values: dict[str, Any] = c.dict("rope_parameters", None) or {}
    if values.get("rope_theta", c.data.get("rope_theta", 0.0)) is None:
        c.ignore("null: attention has no positions", "rope_theta")
        return None
    return rope.rotary(c, rope.parameters(c, 10000.0), s.head_dim, s.context)


def read(c: Config) -> Architecture:
    s = sizes(c, default_context=65536)
    norm, bias = RMSNorm(eps=s.eps), c.bool("attention_bias", False)
    c.only("hidden_act", "silu")  # the reference takes it for the short convolution too
    c.only("linear_use_gate", True)
    net = delta_net(
        c,
        GATED_NORM_EPS,
        key_heads=s.heads,
        value_heads=s.heads,
        key_dim=int(0.75 * s.width / c.count("linear_num_key_heads", s.heads)),
        value_dim=None,
    )
    net = net.replace(negative_eigenvalues=c.bool("linear_allow_neg_eigval", True))
    c.ignore("initialisation", *(f"linear_{key}" for key in ("a_log_min", "a_log_max", "dt_min", "dt_max")))
    c.ignore("initialisation", "linear_dt_init_floor")
    attention = s.attention(rotary=_rotary(c, s), bias=bias, output_bias=bias, qk_norm=QKNorm(norm=norm, over="width"))
    made = {
        "linear_attention": pre_norm(net, s.glu(), norm),
        "full_attention": Block(branches=(Branch(op=attention, after=norm), Branch(op=s.glu(), after=norm))),
    }
    usual = ["linear_attention" if kind == "sliding_attention" else kind for kind in alternating(s.layers, 4, 3)]
    if "full_attention" not in usual:
        usual[-1] = "full_attention"
    return decoder(c, "olmo_hybrid", s, [made[kind] for kind in c.layer_types(s.layers, usual, made)], norm)


FAMILIES = (Family("olmo_hybrid", ("olmo_hybrid",), read),)
