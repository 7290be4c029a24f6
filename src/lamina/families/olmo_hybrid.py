"""OLMo Hybrid: three of four blocks are Gated DeltaNet behind a norm; the fourth is OLMo 3's attention before one.

Source: the published config of Olmo-Hybrid-7B, which has no positions at all (NoPE).
"""

from __future__ import annotations

from typing import Any

from lamina.arch import Architecture, Block, Branch, QKNorm, RMSNorm, Rotary
from lamina.published import rope
from lamina.published.common import Family, Sizes, alternating, decoder, glu_of, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.delta_net import FULL, LINEAR, keys, mixers, parts, separate
from lamina.published.recurrent import delta_net
from lamina.published.rules import AFTER_NORMS, ATTENTION, QK_NORMS, Layout, Rule, decoder_rules
from lamina.published.rules import GLU as GLU_RULES

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
        LINEAR: pre_norm(net, s.glu(), norm),
        FULL: Block(branches=(Branch(op=attention, after=norm), Branch(op=s.glu(), after=norm))),
    }
    usual = [LINEAR if kind == "sliding_attention" else kind for kind in alternating(s.layers, 4, 3)]
    if FULL not in usual:
        usual[-1] = FULL
    return decoder(c, "olmo_hybrid", s, [made[kind] for kind in c.layer_types(s.layers, usual, made)], norm)


def write(arch: Architecture) -> dict[str, Any]:
    net, attention = parts(arch)
    own = {} if attention.rotary else {"rope_parameters": {"rope_theta": None, "rope_type": "default"}}
    return {
        "model_type": "olmo_hybrid",
        **keys(arch, "OlmoHybridForCausalLM", glu_of(arch)),
        **own,
        "attention_bias": attention.bias,
        "linear_allow_neg_eigval": net.negative_eigenvalues,
    }


BEFORE = (Rule("attention_layer_norm", "mixer.before"), Rule("feedforward_layer_norm", "feed_forward.before"))
RENAMED = (Rule("feedforward_layer_norm", "mixer.after"), AFTER_NORMS[1])


def layout(arch: Architecture) -> Layout:
    """The reference saves one norm of the blocks with attention under a name that is published of the other blocks."""
    block = (*mixers(arch, separate() + BEFORE, ATTENTION + QK_NORMS), *GLU_RULES)
    return Layout(decoder_rules(block + RENAMED), others=(decoder_rules(block + AFTER_NORMS),))


FAMILIES = (Family("olmo_hybrid", ("olmo_hybrid",), read, write, layout),)
