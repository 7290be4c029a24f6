"""Granite 4 hybrids and Bamba: Mamba-2 in most blocks, attention in a few; Granite adds experts and multipliers.

Source: the published configs; arXiv 2405.21060 (Mamba-2), 2203.03466 (the multipliers).
"""

from __future__ import annotations

from lamina.arch import Architecture, MoE, RMSNorm
from lamina.arch.base import Op
from lamina.published import rope
from lamina.published.common import Family, Sizes, decoder, pre_norm, sizes
from lamina.published.config import Config
from lamina.published.experts import router
from lamina.published.recurrent import kinds, mamba2

MAMBA, ATTENTION = "linear_attention", "full_attention"
KINDS = {"mamba": MAMBA, MAMBA: MAMBA, "attention": ATTENTION, ATTENTION: ATTENTION}


def _feed_forward(c: Config, s: Sizes) -> Op:
    """Experts of the stated inner width beside one that all tokens share, or that one alone."""
    shared = s.glu().replace(inner=c.count("shared_intermediate_size", 1024))
    if c.int("num_local_experts", 8) == 0:
        c.ignore("there are no routed experts", "num_experts_per_tok", "output_router_logits", "router_aux_loss_coef")
        return shared
    return MoE(router=router(c, experts=8, active=2), expert=s.glu(), shared=shared)


def read_granite(c: Config) -> Architecture:
    s = sizes(c)
    norm, bias = RMSNorm(eps=s.eps), c.bool("attention_bias", False)
    c.only("hidden_act", "silu")  # the reference takes it for the short convolution too
    c.only("normalization_function", "rmsnorm")
    c.ignore("initialisation", "init_method")
    rotary = None
    if c.choice("position_embedding_type", ("rope", "nope"), "nope") == "rope":
        rotary = s.rotary(c)
    c.ignore("attention has no positions", "rope_theta", "rope_scaling", "rope_parameters")
    attention = s.attention(rotary=rotary, bias=bias, output_bias=bias, scale=c.float("attention_multiplier", 1.0))
    feed_forward, residual = _feed_forward(c, s), c.float("residual_multiplier", 1.0)
    mixers: dict[str, Op] = {MAMBA: mamba2(c, s.width, s.eps), ATTENTION: attention}
    made = {kind: pre_norm(op, feed_forward, norm, residual) for kind, op in mixers.items()}
    key = "layer_types" if "layer_types" in c else "layers_block_type"
    found = kinds(c, key, c.list(key, [MAMBA] * s.layers), s.layers, KINDS)
    scale, logits = c.float("embedding_multiplier", 1.0), 1 / c.float("logits_scaling", 1.0)
    return decoder(c, "granitemoehybrid", s, [made[kind] for kind in found], norm, embedding_scale=scale, scale=logits)


def read_bamba(c: Config) -> Architecture:
    """Half of each head is rotated, whatever the config says, as in the reference."""
    s = sizes(c, eps=1e-5, kv_heads=8, default_context=262144)
    norm, bias = RMSNorm(eps=s.eps), c.bool("attention_bias", False)
    c.only("hidden_act", "silu")
    c.only("attn_rotary_emb", s.head_dim // 2)
    c.only("partial_rotary_factor", 0.5)
    c.ignore("training", "z_loss_coefficient")
    values = rope.parameters(c, 10000.0)
    values.setdefault("partial_rotary_factor", 0.5)
    rotary = rope.rotary(c, values, s.head_dim, s.context)
    glu = s.glu(c.bool("mlp_bias", False))
    made = {
        MAMBA: pre_norm(mamba2(c, s.width, s.eps), glu, norm),
        ATTENTION: pre_norm(s.attention(rotary=rotary, bias=bias, output_bias=bias), glu, norm),
    }
    attended = c.list("attn_layer_indices", [])
    blocks = [made[ATTENTION if i in attended else MAMBA] for i in range(s.layers)]
    return decoder(c, "bamba", s, blocks, norm)


FAMILIES = (
    Family("granitemoehybrid", ("granitemoehybrid",), read_granite),
    Family("bamba", ("bamba",), read_bamba),
)
